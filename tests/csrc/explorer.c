/* See explorer.h. */
#include "explorer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "forebay/hash.h"

#define NO_STATE UINT32_MAX

/* ---- what a step may do ---- */

static void apply(struct explorer_state *state, struct explorer_pending pending)
{
    uint8_t *cell = &state->cells[pending.cell];
    *cell = pending.is_addition ? (uint8_t)(*cell + pending.value) : pending.value;
}

static void issue(struct explorer_step *step, struct explorer_pending pending)
{
    struct explorer_thread *self = step->self;
    if (step->memory == MEMORY_SEQUENTIAL)
        apply(step->state, pending);
    else if (self->pending_count == EXPLORER_BUFFER)
        step->is_blocked = true;
    else
        self->pending[self->pending_count++] = pending;
}

uint8_t explorer_load(struct explorer_step *step, unsigned cell)
{
    /* A thread sees its own stores at once, those of others when they arrive. */
    uint8_t value = step->state->cells[cell];
    for (unsigned i = 0; i < step->self->pending_count; i++) {
        struct explorer_pending pending = step->self->pending[i];
        if (pending.cell == cell)
            value = pending.is_addition ? (uint8_t)(value + pending.value) : pending.value;
    }
    return value;
}

void explorer_store(struct explorer_step *step, unsigned cell, uint8_t value)
{
    issue(step, (struct explorer_pending){.cell = (uint8_t)cell, .value = value});
}

void explorer_add_relaxed(struct explorer_step *step, unsigned cell, int difference)
{
    issue(step,
          (struct explorer_pending){.cell = (uint8_t)cell, .value = (uint8_t)difference, .is_addition = 1});
}

void explorer_add(struct explorer_step *step, unsigned cell, int difference)
{
    explorer_fence(step);
    step->state->cells[cell] = (uint8_t)(step->state->cells[cell] + difference);
}

void explorer_exchange(struct explorer_step *step, unsigned cell, uint8_t value)
{
    explorer_fence(step);
    step->state->cells[cell] = value;
}

bool explorer_compare_exchange(struct explorer_step *step, unsigned cell, uint8_t expected, uint8_t value)
{
    explorer_fence(step);
    if (step->state->cells[cell] != expected)
        return false;
    step->state->cells[cell] = value;
    return true;
}

void explorer_fence(struct explorer_step *step)
{
    explorer_await(step, step->self->pending_count == 0);
}

void explorer_lock(struct explorer_step *step, unsigned cell, uint8_t owner)
{
    explorer_await(step, explorer_compare_exchange(step, cell, 0, owner));
}

void explorer_await(struct explorer_step *step, bool condition)
{
    if (!condition)
        step->is_blocked = true;
}

void explorer_require(struct explorer_step *step, bool condition, const char *rule)
{
    if (!condition)
        step->violation = rule;
}

void explorer_finish(struct explorer_step *step, const char *label)
{
    memset(step->self->registers, 0, sizeof step->self->registers);
    explorer_goto(step, EXPLORER_END, label);
}

/* ---- the states seen so far ---- */

struct seen {
    struct explorer_state state;
    uint32_t parent;
    uint8_t thread;
    uint8_t is_arrival; /* of a buffered store, rather than a step of the thread */
};

struct search {
    const struct explorer_protocol *protocol;
    unsigned flags;
    enum explorer_memory memory;
    struct seen *seen;
    uint32_t seen_count;
    uint32_t seen_capacity;
    uint32_t *buckets; /* open addressing over seen, at most half full */
    uint32_t bucket_count;
};

static void *checked(void *memory)
{
    if (memory == NULL) {
        fputs("explorer: out of memory\n", stderr);
        abort();
    }
    return memory;
}

static uint32_t *find_bucket(struct search *search, const struct explorer_state *state)
{
    uint64_t hash[2];
    fb_murmur3_x64_128(state, sizeof *state, 0, hash);
    uint32_t at = (uint32_t)hash[0] & (search->bucket_count - 1);
    while (search->buckets[at] != NO_STATE &&
           memcmp(&search->seen[search->buckets[at]].state, state, sizeof *state) != 0)
        at = (at + 1) & (search->bucket_count - 1);
    return &search->buckets[at];
}

static void grow(struct search *search)
{
    search->seen_capacity = search->seen_capacity == 0 ? 1024 : 2 * search->seen_capacity;
    search->seen = checked(realloc(search->seen, search->seen_capacity * sizeof *search->seen));
    search->bucket_count = 2 * search->seen_capacity;
    free(search->buckets);
    search->buckets = checked(malloc(search->bucket_count * sizeof *search->buckets));
    memset(search->buckets, 0xff, search->bucket_count * sizeof *search->buckets);
    for (uint32_t i = 0; i < search->seen_count; i++)
        *find_bucket(search, &search->seen[i].state) = i;
}

static void remember(struct search *search, const struct seen *candidate)
{
    if (search->seen_count == search->seen_capacity)
        grow(search);
    uint32_t *bucket = find_bucket(search, &candidate->state);
    if (*bucket != NO_STATE)
        return;
    *bucket = search->seen_count;
    search->seen[search->seen_count++] = *candidate;
}

/* ---- one transition ---- */

/* What a transition came to; state is the one it was made in before and the one it led to after. */
static struct explorer_step take_step(const struct search *search, struct explorer_state *state,
                                      unsigned thread)
{
    struct explorer_step step = {
        .state = state,
        .self = &state->threads[thread],
        .memory = search->memory,
        .variant = search->flags,
        .label = "",
    };
    if (step.self->pc == EXPLORER_END)
        step.is_blocked = true;
    else
        search->protocol->step(&step, thread);
    return step;
}

static bool take_arrival(struct explorer_state *state, unsigned thread)
{
    struct explorer_thread *self = &state->threads[thread];
    if (self->pending_count == 0)
        return false;
    apply(state, self->pending[0]);
    self->pending_count--;
    memmove(self->pending, self->pending + 1, self->pending_count * sizeof self->pending[0]);
    memset(&self->pending[self->pending_count], 0, sizeof self->pending[0]);
    return true;
}

static const char *broken_rule(const struct search *search, const struct explorer_state *state)
{
    return search->protocol->broken_rule != NULL ? search->protocol->broken_rule(state) : NULL;
}

/* ---- traces ---- */

/* Prints the way to a state; each transition is taken again for its label. */
static void print_way(const struct search *search, uint32_t index)
{
    const struct seen *reached = &search->seen[index];
    if (reached->parent == NO_STATE)
        return;
    print_way(search, reached->parent);
    const char *name = search->protocol->thread_names[reached->thread];
    if (reached->is_arrival) {
        printf("      %s: (an earlier store becomes visible)\n", name);
        return;
    }
    struct explorer_state state = search->seen[reached->parent].state;
    printf("      %s: %s\n", name, take_step(search, &state, reached->thread).label);
}

static void print_trace(const struct search *search, uint32_t index, const char *last_name,
                        const char *last_label, const char *rule)
{
    print_way(search, index);
    printf("      %s: %s\n      => %s\n", last_name, last_label, rule);
}

/* ---- search ---- */

struct outcome {
    const char *violation;
    bool is_deadlock;
    size_t state_count;
};

static bool all_finished(const struct search *search, const struct explorer_state *state)
{
    for (unsigned thread = 0; thread < search->protocol->thread_count; thread++) {
        if (state->threads[thread].pc != EXPLORER_END)
            return false;
    }
    return true;
}

/* Takes one transition from a state; returns the rule it breaks, or NULL. */
static const char *follow(struct search *search, uint32_t index, unsigned thread, bool is_arrival,
                          bool is_verbose, bool *moved)
{
    struct seen next = {
        .state = search->seen[index].state,
        .parent = index,
        .thread = (uint8_t)thread,
        .is_arrival = is_arrival,
    };
    const char *label = "(an earlier store becomes visible)";
    const char *rule = NULL;

    if (is_arrival) {
        if (!take_arrival(&next.state, thread))
            return NULL;
    } else {
        struct explorer_step step = take_step(search, &next.state, thread);
        if (step.is_blocked)
            return NULL;
        label = step.label;
        rule = step.violation;
    }
    *moved = true;
    if (rule == NULL)
        rule = broken_rule(search, &next.state);
    if (rule == NULL)
        remember(search, &next);
    else if (is_verbose)
        print_trace(search, index, search->protocol->thread_names[thread], label, rule);
    return rule;
}

static struct outcome explore(struct search *search, bool is_verbose)
{
    struct seen initial = {.parent = NO_STATE};
    struct outcome outcome = {0};
    search->protocol->initialise(&initial.state, search->flags);
    remember(search, &initial);

    for (uint32_t index = 0; index < search->seen_count && outcome.violation == NULL; index++) {
        bool moved = false;
        for (unsigned choice = 0; choice < 2 * search->protocol->thread_count && outcome.violation == NULL;
             choice++)
            outcome.violation = follow(search, index, choice / 2, choice % 2, is_verbose, &moved);
        if (!moved && !all_finished(search, &search->seen[index].state)) {
            outcome.is_deadlock = true;
            outcome.violation = "nobody can go on";
            print_way(search, index);
        }
    }
    outcome.state_count = search->seen_count;
    return outcome;
}

static struct outcome explore_variant(const struct explorer_protocol *protocol,
                                      const struct explorer_variant *variant, enum explorer_memory memory,
                                      bool is_verbose)
{
    struct search search = {.protocol = protocol, .flags = variant->flags, .memory = memory};
    struct outcome outcome = explore(&search, is_verbose);
    free(search.seen);
    free(search.buckets);
    return outcome;
}

static size_t run_one(const struct explorer_protocol *protocol, const struct explorer_variant *variant,
                      enum explorer_memory memory, bool is_verbose)
{
    bool expected = memory == MEMORY_SEQUENTIAL ? variant->is_safe_sequential : variant->is_safe_buffered;
    struct outcome outcome = explore_variant(protocol, variant, memory, is_verbose);
    bool is_safe = outcome.violation == NULL;

    printf("  %-60s %-10s %7zu states  %s%s\n", variant->name,
           memory == MEMORY_SEQUENTIAL ? "sequential" : "buffered", outcome.state_count,
           is_safe ? "safe" : "violation: ", is_safe ? "" : outcome.violation);
    if (outcome.is_deadlock || is_safe != expected) {
        if (!is_verbose)
            explore_variant(protocol, variant, memory, true);
        fflush(stdout);
        fprintf(stderr, "%s: %s: expected to be %s\n", protocol->name, variant->name,
                expected ? "safe" : "found unsafe");
        abort();
    }
    return outcome.state_count;
}

size_t explorer_run(const struct explorer_protocol *protocol, const struct explorer_variant *variants,
                    size_t count, bool is_verbose)
{
    size_t state_count = 0;
    printf("%s\n", protocol->name);
    for (size_t i = 0; i < count; i++) {
        state_count += run_one(protocol, &variants[i], MEMORY_SEQUENTIAL, is_verbose);
        state_count += run_one(protocol, &variants[i], MEMORY_BUFFERED, is_verbose);
    }
    printf("%s: %zu variants, %zu states explored\n", protocol->name, count, state_count);
    return state_count;
}
