/* Exhaustive exploration of small concurrent protocols: every interleaving of a few threads over a few shared
 * bytes.
 *
 * A protocol is a function that performs one atomic step of one thread; the explorer runs it in every order,
 * breadth first, and stops at the first step or state that breaks a rule, with the shortest way there. Two
 * memories:
 *
 *   MEMORY_SEQUENTIAL  a store is seen by all at once
 *   MEMORY_BUFFERED    a store, or an addition that is not sequentially consistent, waits in its thread's
 * buffer, first in first out, and reaches the others at any later time; a fence or a sequentially consistent
 *                      read-modify-write waits until the buffer is empty. It is the memory of x86, and what a
 * relaxed addition may do on arm64.
 *
 * Only a step's successor may depend on what it reads: a step that is not allowed yet says so
 * (explorer_await) and is tried again in other states. All values are small: bytes.
 *
 * Source: P. Sewell et al., "x86-TSO: A Rigorous and Usable Programmer's Model" (CACM 2010).
 */
#ifndef FB_TESTS_EXPLORER_H
#define FB_TESTS_EXPLORER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    EXPLORER_CELLS = 12,
    EXPLORER_THREADS = 3,
    EXPLORER_REGISTERS = 5,
    EXPLORER_BUFFER = 5, /* less than a critical section writes would hide what a missing fence does */
    EXPLORER_END = 255,  /* the pc of a thread that has finished */
};

enum explorer_memory { MEMORY_SEQUENTIAL, MEMORY_BUFFERED };

struct explorer_pending {
    uint8_t cell;
    uint8_t value; /* the new value, or what is added modulo 256 */
    uint8_t is_addition;
};

struct explorer_thread {
    uint8_t pc;
    uint8_t registers[EXPLORER_REGISTERS];
    uint8_t pending_count;
    struct explorer_pending pending[EXPLORER_BUFFER];
};

/* Bytes only, so that equal states are equal bytes. */
struct explorer_state {
    uint8_t cells[EXPLORER_CELLS];
    struct explorer_thread threads[EXPLORER_THREADS];
};

/* One step in the making. */
struct explorer_step {
    struct explorer_state *state;
    struct explorer_thread *self;
    enum explorer_memory memory;
    unsigned variant;
    const char *label;     /* what the step does, for the trace */
    bool is_blocked;       /* it may not happen in this state */
    const char *violation; /* the rule it breaks, or NULL */
};

struct explorer_protocol {
    const char *name;
    const char *const *thread_names;
    unsigned thread_count;
    void (*initialise)(struct explorer_state *state, unsigned variant);
    void (*step)(struct explorer_step *step, unsigned thread);
    /* The rule that the shared cells of a state break, or NULL. May be NULL itself. */
    const char *(*broken_rule)(const struct explorer_state *state);
};

/* A way to run the protocol, and what must come of it. */
struct explorer_variant {
    const char *name;
    unsigned flags; /* given to initialise and to each step */
    bool is_safe_sequential;
    bool is_safe_buffered;
};

/* ---- what a step may do ---- */

uint8_t explorer_load(struct explorer_step *step, unsigned cell);
void explorer_store(struct explorer_step *step, unsigned cell, uint8_t value);
/* Sequentially consistent. */
void explorer_add(struct explorer_step *step, unsigned cell, int difference);
void explorer_exchange(struct explorer_step *step, unsigned cell, uint8_t value);
bool explorer_compare_exchange(struct explorer_step *step, unsigned cell, uint8_t expected, uint8_t value);
/* Atomic, but other threads may see it later than what this thread reads next. */
void explorer_add_relaxed(struct explorer_step *step, unsigned cell, int difference);
void explorer_fence(struct explorer_step *step);
/* Takes a lock cell, 0 when free, for an owner; blocked while another has it. */
void explorer_lock(struct explorer_step *step, unsigned cell, uint8_t owner);
void explorer_await(struct explorer_step *step, bool condition);
void explorer_require(struct explorer_step *step, bool condition, const char *rule);

static inline void explorer_goto(struct explorer_step *step, unsigned pc, const char *label)
{
    step->self->pc = (uint8_t)pc;
    step->label = label;
}

/* A store, and on to pc. */
static inline void explorer_write(struct explorer_step *step, unsigned cell, uint8_t value, unsigned pc,
                                  const char *label)
{
    explorer_store(step, cell, value);
    explorer_goto(step, pc, label);
}

/* The thread's end. It forgets its registers, so that ends that differ in nothing else are one state. */
void explorer_finish(struct explorer_step *step, const char *label);

/* ---- running ---- */

/* Explores every variant in both memories, prints a line each and the trace of each violation if verbose.
 * Aborts when one comes out other than expected, and when a state is a deadlock. Returns how many states were
 * explored. */
size_t explorer_run(const struct explorer_protocol *protocol, const struct explorer_variant *variants,
                    size_t count, bool is_verbose);

/* main of a model: all its variants, verbose with the argument -v. */
#define EXPLORER_MAIN(protocol, variants)                                                                    \
    int main(int argc, char **argv)                                                                          \
    {                                                                                                        \
        bool is_verbose = argc > 1 && strcmp(argv[1], "-v") == 0;                                            \
        explorer_run(&(protocol), variants, sizeof(variants) / sizeof(variants)[0], is_verbose);             \
        return EXIT_SUCCESS;                                                                                 \
    }

#endif
