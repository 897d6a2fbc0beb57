/* A writer that puts a record and a cleaner that retires its segment, the writer possibly killed at any
 * moment.
 *
 *   W1 lease += 1, sequentially consistent          C0 the segment is full: OPEN to SEALED
 *   W2 reserve: the record count in the state       C1 SEALED to RETIRING, by compare-and-swap
 *      word, by compare-and-swap; not OPEN: W9      C2 read as many records as the word counts
 *   W3 record = RESERVED                               RESERVED, owner alive: SEALED again, later from C1
 *   W4 write the bytes                                 COMMITTED: C3; anything else: C4
 *   W5 record = COMMITTED                           C3 take the page's lock, also a dead owner's; empty the
 * slot if it W6 take the page's lock                            points to this generation; release the lock
 *   W7 the state word is of the reserved            C4 fence; all leases of live rows zero? no: HELD, again
 * later generation, OPEN or SEALED? publish: give up C5 rewrite the bytes, clear the record W8 release the
 * lock                             C6 OPEN, generation += 1, no records, all in one word W9 lease -= 1
 *
 * Rules: no published slot points to a generation that is gone; nobody writes into the next generation. What
 * the search brings out:
 *
 * - A writer needs a lease as a reader does. Stopped between W2 and W3 it has no record that C2 could see,
 * and without W1 the segment would be another's when it goes on.
 * - W7 compares the generation too. Under a lease asking for RETIRING would do; without one the whole of C1
 * to C6 may pass between W5 and W6, and then the state is OPEN.
 * - C1 has to be visible before C2 reads: an owner that is found dead may have committed and published after
 * its record was read as RESERVED, unless W7 already saw RETIRING.
 *
 * The reader's part is in model_lease.c. Argument -v prints the way to each violation.
 */
#include "explorer.h"

enum cell { STATE_WORD, RECORD, SLOT_GENERATION, PAGE_LOCK, BYTES, LEASE, WRITER_IS_DEAD };

enum thread { WRITER, CLEANER, KILLER, THREAD_COUNT };

/* What a variant takes away. */
enum {
    WRITER_UNLEASED = 1,        /* neither W1 nor W9 */
    STATE_NOT_CHECKED = 2,      /* W7 always publishes */
    GENERATION_NOT_CHECKED = 4, /* W7 asks only whether the state is RETIRING */
    CHECKED_BEFORE_LOCK = 8,    /* W7 looks before W6 */
    UNPUBLISHED_UNLOCKED = 16,  /* C3 without the lock */
    RESERVED_IGNORED = 32,      /* C2 goes on with C4 for a live owner, too */
    RETIRED_LATE = 64,          /* C1 is a store that others may see after C2 */
    RECORD_READ_FIRST = 128,    /* C2 before C1 */
    LOCK_NOT_TAKEN_OVER = 256,  /* C3 skips the slot when a dead writer has the page's lock */
    LEASE_NOT_READ = 512        /* C4 does not look */
};

enum segment_state { OPEN = 1, SEALED, RETIRING };
enum record_state { NO_RECORD, RESERVED, COMMITTED };
enum lock_owner { NOBODY, BY_WRITER, BY_CLEANER };
enum bytes { OF_WRITER = 1, OF_NEXT_GENERATION };

enum { FIRST_GENERATION = 1, RETIREMENTS = 3 };

/* State, record count and generation share a word, as in csrc/src/layout.h. */
static uint8_t make_word(enum segment_state state, unsigned record_count, unsigned generation)
{
    return (uint8_t)(state | record_count << 2 | generation << 4);
}

static enum segment_state state_of(uint8_t word)
{
    return word & 3;
}

static unsigned record_count_of(uint8_t word)
{
    return word >> 2 & 3;
}

static unsigned generation_of(uint8_t word)
{
    return word >> 4;
}

static uint8_t turned(uint8_t word, enum segment_state state)
{
    return make_word(state, record_count_of(word), generation_of(word));
}

static void initialise(struct explorer_state *state, unsigned variant)
{
    (void)variant;
    state->cells[STATE_WORD] = make_word(OPEN, 0, FIRST_GENERATION);
}

static const char *broken_rule(const struct explorer_state *state)
{
    unsigned generation = generation_of(state->cells[STATE_WORD]);
    unsigned published = state->cells[SLOT_GENERATION];

    if (published != 0 && published != generation)
        return "a published slot points into a reused segment";
    if (generation != FIRST_GENERATION &&
        (state->cells[BYTES] == OF_WRITER || state->cells[RECORD] != NO_RECORD))
        return "a late write went into a reused segment";
    return NULL;
}

/* ---- writer ---- */

enum writer_pc {
    BEGIN,
    TAKE_LEASE,
    RESERVE,
    WRITE_RECORD,
    WRITE_BYTES,
    COMMIT,
    TAKE_LOCK,
    CHECK_STATE,
    PUBLISH,
    RELEASE_LOCK,
    DROP_LEASE
};

static bool may_publish(struct explorer_step *step)
{
    uint8_t word = explorer_load(step, STATE_WORD);
    if (step->variant & STATE_NOT_CHECKED)
        return true;
    if (step->variant & GENERATION_NOT_CHECKED)
        return state_of(word) != RETIRING;
    return state_of(word) != RETIRING && generation_of(word) == FIRST_GENERATION;
}

static void check_state(struct explorer_step *step)
{
    bool is_locked = !(step->variant & CHECKED_BEFORE_LOCK);
    if (may_publish(step))
        explorer_goto(step, is_locked ? PUBLISH : TAKE_LOCK, "W7 may publish");
    else
        explorer_goto(step, is_locked ? RELEASE_LOCK : DROP_LEASE, "W7 gives the record up");
}

static void reserve(struct explorer_step *step)
{
    bool is_ours = explorer_compare_exchange(step, STATE_WORD, make_word(OPEN, 0, FIRST_GENERATION),
                                             make_word(OPEN, 1, FIRST_GENERATION));
    explorer_goto(step, is_ours ? WRITE_RECORD : DROP_LEASE,
                  is_ours ? "W2 reserves the record" : "W2 finds the segment closed");
}

static void write_step(struct explorer_step *step)
{
    switch (step->self->pc) {
    case WRITE_RECORD:
        explorer_write(step, RECORD, RESERVED, WRITE_BYTES, "W3 writes the record, reserved");
        break;
    case WRITE_BYTES:
        explorer_write(step, BYTES, OF_WRITER, COMMIT, "W4 writes the bytes");
        break;
    case COMMIT:
        explorer_write(step, RECORD, COMMITTED, step->variant & CHECKED_BEFORE_LOCK ? CHECK_STATE : TAKE_LOCK,
                       "W5 commits the record");
        break;
    }
}

static void publish_step(struct explorer_step *step)
{
    switch (step->self->pc) {
    case TAKE_LOCK:
        explorer_lock(step, PAGE_LOCK, BY_WRITER);
        explorer_goto(step, step->variant & CHECKED_BEFORE_LOCK ? PUBLISH : CHECK_STATE, "W6 takes the lock");
        break;
    case CHECK_STATE:
        check_state(step);
        break;
    case PUBLISH:
        explorer_write(step, SLOT_GENERATION, FIRST_GENERATION, RELEASE_LOCK, "W7 publishes the slot");
        break;
    case RELEASE_LOCK:
        explorer_write(step, PAGE_LOCK, NOBODY, DROP_LEASE, "W8 releases the lock");
        break;
    }
}

static void writer_step(struct explorer_step *step)
{
    bool has_lease = !(step->variant & WRITER_UNLEASED);

    switch (step->self->pc) {
    case BEGIN:
        explorer_goto(step, has_lease ? TAKE_LEASE : RESERVE, "begins");
        break;
    case TAKE_LEASE:
        explorer_add(step, LEASE, 1);
        explorer_goto(step, RESERVE, "W1 takes a lease");
        break;
    case RESERVE:
        reserve(step);
        break;
    case DROP_LEASE:
        if (has_lease)
            explorer_add_relaxed(step, LEASE, -1);
        explorer_goto(step, EXPLORER_END, "W9 drops the lease");
        break;
    default:
        if (step->self->pc <= COMMIT)
            write_step(step);
        else
            publish_step(step);
        break;
    }
}

/* ---- cleaner ---- */

enum cleaner_register { RETIRED_COUNT, NEXT_PC };

enum cleaner_pc {
    SEAL,
    BEGIN_RETIREMENT,
    RETIRE,
    READ_COUNT,
    READ_RECORD,
    PROBE_OWNER,
    GIVE_UP,
    TAKE_PAGE_LOCK,
    UNPUBLISH,
    RELEASE_PAGE_LOCK,
    FENCE,
    LOOK_AT_LEASE,
    REWRITE,
    CLEAR_RECORD,
    REOPEN
};

static void turn(struct explorer_step *step, enum segment_state state, unsigned next, const char *label)
{
    explorer_exchange(step, STATE_WORD, turned(step->state->cells[STATE_WORD], state));
    explorer_goto(step, next, label);
}

static void retire(struct explorer_step *step)
{
    unsigned next = step->variant & RECORD_READ_FIRST ? step->self->registers[NEXT_PC] : READ_COUNT;
    if (step->variant & RETIRED_LATE) {
        explorer_write(step, STATE_WORD, turned(explorer_load(step, STATE_WORD), RETIRING), next,
                       "C1 sets RETIRING, to be seen later");
    } else {
        turn(step, RETIRING, next, "C1 sets RETIRING");
    }
}

/* On to pc, by way of C1 where C2 comes first. */
static void leave_record(struct explorer_step *step, unsigned pc, const char *label)
{
    bool retires_now = step->variant & RECORD_READ_FIRST && pc != GIVE_UP;
    step->self->registers[NEXT_PC] = retires_now ? (uint8_t)pc : 0;
    explorer_goto(step, retires_now ? RETIRE : pc, label);
}

static void read_count(struct explorer_step *step)
{
    if (record_count_of(explorer_load(step, STATE_WORD)) == 0)
        leave_record(step, FENCE, "C2 finds no record counted");
    else
        explorer_goto(step, READ_RECORD, "C2 finds a record counted");
}

static void read_record(struct explorer_step *step)
{
    uint8_t record = explorer_load(step, RECORD);
    if (record == COMMITTED)
        leave_record(step, step->variant & UNPUBLISHED_UNLOCKED ? UNPUBLISH : TAKE_PAGE_LOCK,
                     "C2 finds the record committed");
    else if (record == NO_RECORD || step->variant & RESERVED_IGNORED)
        leave_record(step, FENCE, "C2 finds the record not committed");
    else
        explorer_goto(step, PROBE_OWNER, "C2 finds the record reserved");
}

static void probe_owner(struct explorer_step *step)
{
    bool is_dead = explorer_load(step, WRITER_IS_DEAD);
    leave_record(step, is_dead ? FENCE : GIVE_UP,
                 is_dead ? "C2 finds the owner dead" : "C2 finds the owner alive");
}

static void give_up(struct explorer_step *step)
{
    uint8_t retired_count = ++step->self->registers[RETIRED_COUNT];
    turn(step, SEALED, retired_count == RETIREMENTS ? EXPLORER_END : BEGIN_RETIREMENT,
         "C2 gives up: sealed again");
}

static void take_page_lock(struct explorer_step *step)
{
    bool is_left_behind = explorer_load(step, PAGE_LOCK) == BY_WRITER && explorer_load(step, WRITER_IS_DEAD);

    if (is_left_behind && step->variant & LOCK_NOT_TAKEN_OVER) {
        explorer_goto(step, FENCE, "C3 leaves a dead writer's page alone");
    } else if (is_left_behind) {
        explorer_exchange(step, PAGE_LOCK, BY_CLEANER);
        explorer_goto(step, UNPUBLISH, "C3 takes a dead writer's lock over");
    } else {
        explorer_lock(step, PAGE_LOCK, BY_CLEANER);
        explorer_goto(step, UNPUBLISH, "C3 takes the lock");
    }
}

static void unpublish(struct explorer_step *step)
{
    if (explorer_load(step, SLOT_GENERATION) == FIRST_GENERATION)
        explorer_store(step, SLOT_GENERATION, 0);
    explorer_goto(step, step->variant & UNPUBLISHED_UNLOCKED ? FENCE : RELEASE_PAGE_LOCK,
                  "C3 empties the slot");
}

/* HELD: blocked until nobody alive has a lease. A dead row's counts do not count. */
static void look_at_lease(struct explorer_step *step)
{
    bool is_held = explorer_load(step, LEASE) != 0 && !explorer_load(step, WRITER_IS_DEAD);
    explorer_await(step, !is_held || step->variant & LEASE_NOT_READ);
    explorer_goto(step, REWRITE, "C4 finds no lease");
}

static void retirement_step(struct explorer_step *step)
{
    switch (step->self->pc) {
    case SEAL:
        turn(step, SEALED, BEGIN_RETIREMENT, "C0 seals the segment");
        break;
    case BEGIN_RETIREMENT:
        explorer_goto(step, step->variant & RECORD_READ_FIRST ? READ_COUNT : RETIRE, "begins to retire");
        break;
    case RETIRE:
        retire(step);
        break;
    case READ_COUNT:
        read_count(step);
        break;
    case READ_RECORD:
        read_record(step);
        break;
    case PROBE_OWNER:
        probe_owner(step);
        break;
    case GIVE_UP:
        give_up(step);
        break;
    }
}

static void reuse_step(struct explorer_step *step)
{
    switch (step->self->pc) {
    case TAKE_PAGE_LOCK:
        take_page_lock(step);
        break;
    case UNPUBLISH:
        unpublish(step);
        break;
    case RELEASE_PAGE_LOCK:
        explorer_write(step, PAGE_LOCK, NOBODY, FENCE, "C3 releases the lock");
        break;
    case FENCE:
        explorer_fence(step);
        explorer_goto(step, LOOK_AT_LEASE, "C4 fence");
        break;
    case LOOK_AT_LEASE:
        look_at_lease(step);
        break;
    case REWRITE:
        explorer_write(step, BYTES, OF_NEXT_GENERATION, CLEAR_RECORD, "C5 rewrites the bytes");
        break;
    case CLEAR_RECORD:
        explorer_write(step, RECORD, NO_RECORD, REOPEN, "C5 clears the record");
        break;
    case REOPEN:
        explorer_write(step, STATE_WORD, make_word(OPEN, 0, FIRST_GENERATION + 1), EXPLORER_END,
                       "C6 opens the next generation");
        break;
    }
}

/* ---- death ---- */

/* The writer's stores have arrived by the time that the kernel drops its row's lock and a probe can tell. */
static void killer_step(struct explorer_step *step)
{
    struct explorer_thread *writer = &step->state->threads[WRITER];
    explorer_await(step, writer->pending_count == 0);
    writer->pc = EXPLORER_END;
    step->state->cells[WRITER_IS_DEAD] = true;
    explorer_goto(step, EXPLORER_END, "kills the writer");
}

static void take_step(struct explorer_step *step, unsigned thread)
{
    if (thread == WRITER)
        writer_step(step);
    else if (thread == KILLER)
        killer_step(step);
    else if (step->self->pc <= GIVE_UP)
        retirement_step(step);
    else
        reuse_step(step);
}

static const char *const thread_names[THREAD_COUNT] = {"writer", "cleaner", "killer"};

static const struct explorer_protocol protocol = {
    .name = "publish",
    .thread_names = thread_names,
    .thread_count = THREAD_COUNT,
    .initialise = initialise,
    .step = take_step,
    .broken_rule = broken_rule,
};

static const struct explorer_variant variants[] = {
    {"as designed", 0, true, true},
    {"the writer has no lease", WRITER_UNLEASED, false, false},
    {"the cleaner does not look at the lease", LEASE_NOT_READ, false, false},
    {"the writer does not look at the state", STATE_NOT_CHECKED, false, false},
    {"the writer asks only whether the state is RETIRING", GENERATION_NOT_CHECKED, true, true},
    {"the writer looks at the state before it has the lock", CHECKED_BEFORE_LOCK, false, false},
    {"the cleaner unpublishes without the lock", UNPUBLISHED_UNLOCKED, false, false},
    {"the cleaner goes on past a live writer's reserved record", RESERVED_IGNORED, true, true},
    {"the cleaner's RETIRING is seen late", RETIRED_LATE, true, false},
    {"the cleaner reads the record before it sets RETIRING", RECORD_READ_FIRST, false, false},
    {"the cleaner passes by a dead writer's page", LOCK_NOT_TAKEN_OVER, false, false},
};

EXPLORER_MAIN(protocol, variants)
