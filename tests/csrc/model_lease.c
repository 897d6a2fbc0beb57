/* Two readers and a cleaner over one slot and one segment: the lease protocol of csrc/src/read.c, in every
 * order.
 *
 *   R1 read the sequence (odd: again), the slot      C1 state = RETIRING (no reader looks at it: left out
 * here) R2 lease += 1, sequentially consistent          C2 under the page's lock: sequence odd, slot empty,
 * sequence even R3 the sequence is still R1's? no: R5, again    C3 fence, sequentially consistent R4 use the
 * bytes                                C4 all leases zero? no: HELD, looked at again later R5 lease -= 1,
 * release                          C5 rewrite the bytes: the segment's next generation C6 publish the new
 * block in the same slot, as C2 does
 *
 * Rule: what a reader uses is of the generation that its slot named. The sketch of the proof that the search
 * carries out: if C4 missed R2, then R2 and so R3 come after C3, so R3 sees C2's sequence and the reader
 * undoes. The variants below take one thing away each. The page's lock has no second taker here, so it is
 * left out.
 *
 * Argument -v prints the shortest interleaving to each violation.
 */
#include <string.h>

#include "explorer.h"

enum cell { SEQUENCE, SLOT_SEGMENT, SLOT_GENERATION, BYTES, LEASE_FIRST_ROW, LEASE_SECOND_ROW };

enum thread { READER_ONE, READER_TWO, CLEANER, THREAD_COUNT };

/* What a variant takes away or changes. */
enum {
    ONE_ROW = 1,               /* both readers are threads of one process */
    RELAXED_ADD = 2,           /* R2 is atomic, but R3 may be answered before others see it */
    DIVIDED_ADD = 4,           /* R2 is a load and a store */
    NO_RECHECK = 8,            /* no R3 */
    ADD_AFTER_RECHECK = 16,    /* R3 before R2 */
    NO_FENCE = 32,             /* no C3 */
    LEASES_READ_FIRST = 64,    /* C4 before C2 */
    ODD_IGNORED = 128,         /* R1 goes on with an odd sequence */
    SEQUENCE_NOT_MOVED = 256,  /* C2 and C6 write the slot alone */
    ONE_LEASE_OVERLOOKED = 512 /* C4 looks at the first row only */
};

/* Values of BYTES other than generations. */
enum { HALF_REWRITTEN = 99 };

enum { GENERATIONS = 3, TRIES = 3 };

static void initialise(struct explorer_state *state, unsigned variant)
{
    (void)variant;
    state->cells[SLOT_SEGMENT] = 1;
    state->cells[SLOT_GENERATION] = 1;
    state->cells[BYTES] = 1;
    state->threads[CLEANER].registers[0] = 1; /* the generation that it will retire */
}

/* ---- reader ---- */

enum reader_register { OWN_SEQUENCE, OWN_GENERATION, OWN_SEGMENT, OWN_LEASES, TRIED };

enum reader_pc {
    READ_SEQUENCE,
    READ_SEGMENT,
    READ_GENERATION,
    ADD_LEASE,
    STORE_LEASE,
    RECHECK,
    USE,
    USE_AGAIN,
    RELEASE,
    UNDO
};

static void try_again(struct explorer_step *step, const char *label)
{
    uint8_t tried = (uint8_t)(step->self->registers[TRIED] + 1);
    if (tried == TRIES) {
        explorer_finish(step, label);
        return;
    }
    memset(step->self->registers, 0, sizeof step->self->registers);
    step->self->registers[TRIED] = tried;
    explorer_goto(step, READ_SEQUENCE, label);
}

static void read_sequence(struct explorer_step *step)
{
    uint8_t sequence = explorer_load(step, SEQUENCE);
    if (sequence % 2 == 1 && !(step->variant & ODD_IGNORED)) {
        try_again(step, "R1 reads an odd sequence");
        return;
    }
    step->self->registers[OWN_SEQUENCE] = sequence;
    explorer_goto(step, READ_SEGMENT, "R1 reads the sequence");
}

static void read_generation(struct explorer_step *step)
{
    step->self->registers[OWN_GENERATION] = explorer_load(step, SLOT_GENERATION);
    if (step->self->registers[OWN_SEGMENT] == 0)
        explorer_finish(step, "R1 finds the slot empty: a miss");
    else
        explorer_goto(step, step->variant & ADD_AFTER_RECHECK ? RECHECK : ADD_LEASE,
                      "R1 reads the slot's generation");
}

static void add_lease(struct explorer_step *step, unsigned lease)
{
    unsigned next = step->variant & (ADD_AFTER_RECHECK | NO_RECHECK) ? USE : RECHECK;

    if (step->self->pc == STORE_LEASE) {
        explorer_write(step, lease, (uint8_t)(step->self->registers[OWN_LEASES] + 1), next,
                       "R2 stores the lease, increased");
    } else if (step->variant & DIVIDED_ADD) {
        step->self->registers[OWN_LEASES] = explorer_load(step, lease);
        explorer_goto(step, STORE_LEASE, "R2 loads the lease");
    } else if (step->variant & RELAXED_ADD) {
        explorer_add_relaxed(step, lease, 1);
        explorer_goto(step, next, "R2 increases the lease, relaxed");
    } else {
        explorer_add(step, lease, 1);
        explorer_goto(step, next, "R2 increases the lease");
    }
}

static void recheck(struct explorer_step *step)
{
    if (explorer_load(step, SEQUENCE) == step->self->registers[OWN_SEQUENCE])
        explorer_goto(step, step->variant & ADD_AFTER_RECHECK ? ADD_LEASE : USE,
                      "R3 finds the sequence unchanged");
    else if (step->variant & ADD_AFTER_RECHECK)
        try_again(step, "R3 finds the sequence changed");
    else
        explorer_goto(step, UNDO, "R3 finds the sequence changed");
}

static void use(struct explorer_step *step, unsigned next)
{
    explorer_require(step, explorer_load(step, BYTES) == step->self->registers[OWN_GENERATION],
                     "a reader uses bytes of another generation");
    explorer_goto(step, next, "R4 uses the bytes");
}

static void reader_step(struct explorer_step *step, unsigned thread)
{
    unsigned lease = thread == READER_ONE || step->variant & ONE_ROW ? LEASE_FIRST_ROW : LEASE_SECOND_ROW;

    switch ((enum reader_pc)step->self->pc) {
    case READ_SEQUENCE:
        read_sequence(step);
        break;
    case READ_SEGMENT:
        step->self->registers[OWN_SEGMENT] = explorer_load(step, SLOT_SEGMENT);
        explorer_goto(step, READ_GENERATION, "R1 reads the slot's segment");
        break;
    case READ_GENERATION:
        read_generation(step);
        break;
    case ADD_LEASE:
    case STORE_LEASE:
        add_lease(step, lease);
        break;
    case RECHECK:
        recheck(step);
        break;
    case USE:
        use(step, USE_AGAIN);
        break;
    case USE_AGAIN:
        use(step, RELEASE);
        break;
    case RELEASE:
        explorer_add_relaxed(step, lease, -1);
        explorer_finish(step, "R5 decreases the lease");
        break;
    case UNDO:
        explorer_add_relaxed(step, lease, -1);
        try_again(step, "R5 undoes the lease");
        break;
    }
}

/* ---- cleaner ---- */

enum cleaner_register { RETIRED_GENERATION };

enum cleaner_pc {
    BEGIN,
    MAKE_ODD,
    EMPTY_SEGMENT,
    EMPTY_GENERATION,
    MAKE_EVEN,
    FENCE,
    LOOK_AT_FIRST_ROW,
    LOOK_AT_SECOND_ROW,
    BEGIN_REWRITE,
    END_REWRITE,
    PUBLISH_ODD,
    PUBLISH_GENERATION,
    PUBLISH_SEGMENT,
    PUBLISH_EVEN
};

static void move_sequence(struct explorer_step *step, unsigned next, const char *label)
{
    if (!(step->variant & SEQUENCE_NOT_MOVED))
        explorer_store(step, SEQUENCE, (uint8_t)(explorer_load(step, SEQUENCE) + 1));
    explorer_goto(step, next, label);
}

/* HELD: from the first row again; nothing but time lies between. */
static void look_at_lease(struct explorer_step *step, unsigned lease, unsigned next)
{
    bool is_held = explorer_load(step, lease) != 0;
    explorer_goto(step, is_held ? LOOK_AT_FIRST_ROW : next,
                  is_held ? "C4 finds a lease" : "C4 finds no lease");
}

static void end_generation(struct explorer_step *step)
{
    uint8_t generation = ++step->self->registers[RETIRED_GENERATION];
    if (generation == GENERATIONS)
        explorer_finish(step, "C6 leaves the last generation unpublished");
    else
        explorer_goto(step, PUBLISH_ODD, "C6 begins to publish the new block");
}

static void clean_step(struct explorer_step *step)
{
    bool leases_first = step->variant & LEASES_READ_FIRST;
    uint8_t next_generation = (uint8_t)(step->self->registers[RETIRED_GENERATION] + 1);

    switch (step->self->pc) {
    case BEGIN:
        explorer_goto(step, leases_first ? LOOK_AT_FIRST_ROW : MAKE_ODD, "C2 begins");
        break;
    case MAKE_ODD:
        move_sequence(step, EMPTY_SEGMENT, "C2 makes the sequence odd");
        break;
    case EMPTY_SEGMENT:
        explorer_write(step, SLOT_SEGMENT, 0, EMPTY_GENERATION, "C2 clears the slot's segment");
        break;
    case EMPTY_GENERATION:
        explorer_write(step, SLOT_GENERATION, 0, MAKE_EVEN, "C2 clears the slot's generation");
        break;
    case MAKE_EVEN:
        move_sequence(step, FENCE, "C2 makes the sequence even");
        break;
    case FENCE:
        if (!(step->variant & NO_FENCE))
            explorer_fence(step);
        explorer_goto(step, leases_first ? BEGIN_REWRITE : LOOK_AT_FIRST_ROW, "C3 fence");
        break;
    case LOOK_AT_FIRST_ROW:
        look_at_lease(step, LEASE_FIRST_ROW,
                      !(step->variant & ONE_LEASE_OVERLOOKED) ? LOOK_AT_SECOND_ROW
                      : leases_first                          ? MAKE_ODD
                                                              : BEGIN_REWRITE);
        break;
    case LOOK_AT_SECOND_ROW:
        look_at_lease(step, LEASE_SECOND_ROW, leases_first ? MAKE_ODD : BEGIN_REWRITE);
        break;
    case BEGIN_REWRITE:
        explorer_write(step, BYTES, HALF_REWRITTEN, END_REWRITE, "C5 begins to rewrite the bytes");
        break;
    case END_REWRITE:
        explorer_store(step, BYTES, next_generation);
        end_generation(step);
        break;
    }
}

static void publish_step(struct explorer_step *step)
{
    switch (step->self->pc) {
    case PUBLISH_ODD:
        move_sequence(step, PUBLISH_GENERATION, "C6 makes the sequence odd");
        break;
    case PUBLISH_GENERATION:
        explorer_write(step, SLOT_GENERATION, step->self->registers[RETIRED_GENERATION], PUBLISH_SEGMENT,
                       "C6 writes the slot's generation");
        break;
    case PUBLISH_SEGMENT:
        explorer_write(step, SLOT_SEGMENT, 1, PUBLISH_EVEN, "C6 writes the slot's segment");
        break;
    case PUBLISH_EVEN:
        move_sequence(step, BEGIN, "C6 makes the sequence even");
        break;
    }
}

static void take_step(struct explorer_step *step, unsigned thread)
{
    if (thread != CLEANER)
        reader_step(step, thread);
    else if (step->self->pc < PUBLISH_ODD)
        clean_step(step);
    else
        publish_step(step);
}

static const char *const thread_names[THREAD_COUNT] = {"reader one", "reader two", "cleaner"};

static const struct explorer_protocol protocol = {
    .name = "lease",
    .thread_names = thread_names,
    .thread_count = THREAD_COUNT,
    .initialise = initialise,
    .step = take_step,
};

static const struct explorer_variant variants[] = {
    {"as designed, readers in two processes", 0, true, true},
    {"as designed, readers in one process", ONE_ROW, true, true},
    {"the reader's add is not ordered before its re-check", RELAXED_ADD, true, false},
    {"the reader's add is a load and a store, one process", DIVIDED_ADD | ONE_ROW, false, false},
    {"the reader does not re-check", NO_RECHECK, false, false},
    {"the reader re-checks before it adds", ADD_AFTER_RECHECK, false, false},
    {"the reader goes on with an odd sequence", ODD_IGNORED, false, false},
    {"the cleaner does not move the sequence", SEQUENCE_NOT_MOVED, false, false},
    {"the cleaner has no fence", NO_FENCE, true, false},
    {"the cleaner reads the leases before it unpublishes", LEASES_READ_FIRST, false, false},
    {"the cleaner overlooks a row", ONE_LEASE_OVERLOOKED, false, false},
};

EXPLORER_MAIN(protocol, variants)
