/* Two readers and an unmapper in one process: the map pointer of a segment, in csrc/src/segfile.c.
 *
 *   R1 lease += 1, sequentially consistent          U1 take the process's map lock, load the pointer
 *   R2 load the pointer; NULL: slow path            U2 pointer = NULL
 *   R3 load the map's epoch; not the file's: slow   U3 fence, sequentially consistent
 *   R4 load the pointer again; changed: slow        U4 lease > 0: put the pointer back; else unmap
 *   R5 use the map                                  U5 release the lock
 *   R6 lease -= 1, release
 *
 *   slow path: S1 take the map lock
 *              S2 load pointer and epoch; both good: S4
 *              S3 pointer = NULL, unmap what is stale, map the file, store epoch, then pointer
 *              S4 release the lock, on with R5
 *
 * A map is stale when its file was removed and made anew under the same number; nobody can have been reading
 * it then, and the leases that there are belong to the new file. Rules: nobody uses a map that is gone or of
 * the old file; there is never a second map. R4 is there because S3 changes two words: a reader that was
 * stopped between R2 and R3 would take the new epoch for that of the pointer that it has. Argument -v prints
 * the way to each violation.
 */
#include "explorer.h"

/* POINTER holds a map's number, 0 for NULL; IS_MAPPED + n is 1 while map n is there. */
enum cell { LEASE, POINTER, EPOCH, MAP_LOCK, MAP_COUNT, IS_MAPPED, LAST_IS_MAPPED = EXPLORER_CELLS - 1 };

enum thread { READER_ONE, READER_TWO, UNMAPPER, THREAD_COUNT };

/* Where a variant begins, and what it takes away. */
enum {
    STALE = 1,               /* the first map is of a file that is gone */
    RELAXED_ADD = 2,         /* R1 is atomic, but R2 may be answered before others see it */
    POINTER_FIRST = 4,       /* R2 before R1 */
    NO_FENCE = 8,            /* no U3 */
    LEASE_NOT_READ = 16,     /* U4 always unmaps */
    LEASE_READ_FIRST = 32,   /* U4 looks before U2 */
    SLOW_PATH_UNLOCKED = 64, /* neither S1 nor S4 */
    POINTER_READ_ONCE = 128, /* no R4 */
    EPOCH_NOT_READ = 256     /* no R3 */
};

enum { OLD_FILE = 1, THIS_FILE = 2 }; /* epochs */
enum { FIRST_MAP = 1, ROUNDS = 2 };

/* Each reader makes one map at most. */
_Static_assert(LAST_IS_MAPPED - IS_MAPPED >= FIRST_MAP + 2, "a cell for every map that may be made");

static void initialise(struct explorer_state *state, unsigned variant)
{
    state->cells[POINTER] = FIRST_MAP;
    state->cells[EPOCH] = variant & STALE ? OLD_FILE : THIS_FILE;
    state->cells[MAP_COUNT] = FIRST_MAP;
    state->cells[IS_MAPPED + FIRST_MAP] = 1;
}

static const char *broken_rule(const struct explorer_state *state)
{
    unsigned mapped_count = 0;
    for (unsigned map = 1; map <= state->cells[MAP_COUNT]; map++)
        mapped_count += state->cells[IS_MAPPED + map];
    return mapped_count > 1 ? "a map was made beside one that is there" : NULL;
}

/* ---- reader ---- */

enum reader_register { OWN_MAP };

enum reader_pc {
    BEGIN,
    ADD_LEASE,
    LOAD_POINTER,
    LOAD_EPOCH,
    LOAD_POINTER_AGAIN,
    USE,
    USE_AGAIN,
    RELEASE,
    SLOW_LOCK,
    SLOW_LOAD,
    SLOW_CLEAR_POINTER,
    SLOW_UNMAP,
    SLOW_MAP,
    SLOW_STORE_EPOCH,
    SLOW_STORE_POINTER,
    SLOW_UNLOCK
};

static unsigned slow_path(const struct explorer_step *step)
{
    return step->variant & SLOW_PATH_UNLOCKED ? SLOW_LOAD : SLOW_LOCK;
}

static void add_lease(struct explorer_step *step)
{
    if (step->variant & RELAXED_ADD)
        explorer_add_relaxed(step, LEASE, 1);
    else
        explorer_add(step, LEASE, 1);
    if (!(step->variant & POINTER_FIRST))
        explorer_goto(step, LOAD_POINTER, "R1 increases the lease");
    else
        explorer_goto(step, step->self->registers[OWN_MAP] != 0 ? LOAD_EPOCH : slow_path(step),
                      "R1 increases the lease");
}

static void load_pointer(struct explorer_step *step)
{
    uint8_t map = explorer_load(step, POINTER);
    step->self->registers[OWN_MAP] = map;
    if (step->variant & POINTER_FIRST)
        explorer_goto(step, ADD_LEASE, "R2 loads the pointer");
    else
        explorer_goto(step, map != 0 ? LOAD_EPOCH : slow_path(step), "R2 loads the pointer");
}

static void load_epoch(struct explorer_step *step)
{
    bool is_good = step->variant & EPOCH_NOT_READ || explorer_load(step, EPOCH) == THIS_FILE;
    unsigned next = step->variant & (POINTER_READ_ONCE | POINTER_FIRST) ? USE : LOAD_POINTER_AGAIN;
    explorer_goto(step, is_good ? next : slow_path(step), "R3 loads the epoch");
}

static void load_pointer_again(struct explorer_step *step)
{
    bool is_same = explorer_load(step, POINTER) == step->self->registers[OWN_MAP];
    explorer_goto(step, is_same ? USE : slow_path(step), "R4 loads the pointer again");
}

static bool is_of_this_file(const struct explorer_step *step, unsigned map)
{
    return map != FIRST_MAP || !(step->variant & STALE);
}

/* The page tables are not in anybody's store buffer. */
static void use(struct explorer_step *step, unsigned next)
{
    unsigned map = step->self->registers[OWN_MAP];
    explorer_require(step, step->state->cells[IS_MAPPED + map] == 1, "a reader uses a map that is gone");
    explorer_require(step, is_of_this_file(step, map), "a reader uses a map of the old file");
    explorer_goto(step, next, "R5 uses the map");
}

/* Nobody else changes pointer and epoch while the lock is held, so they may be read in one step. */
static void slow_load(struct explorer_step *step)
{
    uint8_t map = explorer_load(step, POINTER);
    bool is_good = map != 0 && explorer_load(step, EPOCH) == THIS_FILE;
    unsigned unlock = step->variant & SLOW_PATH_UNLOCKED ? USE : SLOW_UNLOCK;
    step->self->registers[OWN_MAP] = map;
    explorer_goto(step,
                  is_good    ? unlock
                  : map != 0 ? SLOW_CLEAR_POINTER
                             : SLOW_MAP,
                  "S2 loads pointer and epoch");
}

static void slow_step(struct explorer_step *step)
{
    uint8_t *own_map = &step->self->registers[OWN_MAP];

    switch (step->self->pc) {
    case SLOW_LOCK:
        explorer_lock(step, MAP_LOCK, 1);
        explorer_goto(step, SLOW_LOAD, "S1 takes the lock");
        break;
    case SLOW_LOAD:
        slow_load(step);
        break;
    case SLOW_CLEAR_POINTER:
        explorer_write(step, POINTER, 0, SLOW_UNMAP, "S3 clears the stale pointer");
        break;
    case SLOW_UNMAP:
        step->state->cells[IS_MAPPED + *own_map] = 0;
        explorer_goto(step, SLOW_MAP, "S3 unmaps the stale map");
        break;
    case SLOW_MAP:
        *own_map = ++step->state->cells[MAP_COUNT];
        step->state->cells[IS_MAPPED + *own_map] = 1;
        explorer_goto(step, SLOW_STORE_EPOCH, "S3 maps the file");
        break;
    case SLOW_STORE_EPOCH:
        explorer_write(step, EPOCH, THIS_FILE, SLOW_STORE_POINTER, "S3 stores the epoch");
        break;
    case SLOW_STORE_POINTER:
        explorer_write(step, POINTER, *own_map, step->variant & SLOW_PATH_UNLOCKED ? USE : SLOW_UNLOCK,
                       "S3 stores the pointer");
        break;
    case SLOW_UNLOCK:
        explorer_write(step, MAP_LOCK, 0, USE, "S4 releases the lock");
        break;
    }
}

static void reader_step(struct explorer_step *step)
{
    switch (step->self->pc) {
    case BEGIN:
        explorer_goto(step, step->variant & POINTER_FIRST ? LOAD_POINTER : ADD_LEASE, "begins");
        break;
    case ADD_LEASE:
        add_lease(step);
        break;
    case LOAD_POINTER:
        load_pointer(step);
        break;
    case LOAD_EPOCH:
        load_epoch(step);
        break;
    case LOAD_POINTER_AGAIN:
        load_pointer_again(step);
        break;
    case USE:
        use(step, USE_AGAIN);
        break;
    case USE_AGAIN:
        use(step, RELEASE);
        break;
    case RELEASE:
        explorer_add_relaxed(step, LEASE, -1);
        explorer_finish(step, "R6 decreases the lease");
        break;
    default:
        slow_step(step);
        break;
    }
}

/* ---- unmapper ---- */

enum unmapper_register { TAKEN_MAP, DONE_ROUNDS };

enum unmapper_pc {
    TAKE_LOCK,
    TAKE_POINTER,
    PEEK_LEASE,
    CLEAR_POINTER,
    FENCE,
    LOOK_AT_LEASE,
    RESTORE,
    UNMAP,
    RELEASE_LOCK
};

static void take_pointer(struct explorer_step *step)
{
    uint8_t map = explorer_load(step, POINTER);
    step->self->registers[TAKEN_MAP] = map;
    explorer_goto(step,
                  map == 0                           ? RELEASE_LOCK
                  : step->variant & LEASE_READ_FIRST ? PEEK_LEASE
                                                     : CLEAR_POINTER,
                  "U1 loads the pointer");
}

static void look_at_lease(struct explorer_step *step)
{
    bool is_blind = step->variant & (LEASE_NOT_READ | LEASE_READ_FIRST);
    bool is_leased = !is_blind && explorer_load(step, LEASE) != 0;
    explorer_goto(step, is_leased ? RESTORE : UNMAP, is_leased ? "U4 finds a lease" : "U4 finds no lease");
}

static void release_lock(struct explorer_step *step)
{
    uint8_t done_rounds = ++step->self->registers[DONE_ROUNDS];
    step->self->registers[TAKEN_MAP] = 0;
    explorer_write(step, MAP_LOCK, 0, done_rounds == ROUNDS ? EXPLORER_END : TAKE_LOCK,
                   "U5 releases the lock");
}

static void unmapper_step(struct explorer_step *step)
{
    uint8_t map = step->self->registers[TAKEN_MAP];

    switch ((enum unmapper_pc)step->self->pc) {
    case TAKE_LOCK:
        explorer_lock(step, MAP_LOCK, 2);
        explorer_goto(step, TAKE_POINTER, "U1 takes the lock");
        break;
    case TAKE_POINTER:
        take_pointer(step);
        break;
    case PEEK_LEASE: {
        bool is_leased = explorer_load(step, LEASE) != 0;
        explorer_goto(step, is_leased ? RELEASE_LOCK : CLEAR_POINTER, "U4 looks at the lease too early");
        break;
    }
    case CLEAR_POINTER:
        explorer_write(step, POINTER, 0, FENCE, "U2 clears the pointer");
        break;
    case FENCE:
        if (!(step->variant & NO_FENCE))
            explorer_fence(step);
        explorer_goto(step, LOOK_AT_LEASE, "U3 fence");
        break;
    case LOOK_AT_LEASE:
        look_at_lease(step);
        break;
    case RESTORE:
        explorer_write(step, POINTER, map, RELEASE_LOCK, "U4 puts the pointer back");
        break;
    case UNMAP:
        /* A system call, but nothing makes the pointer's store arrive before the pages are gone. */
        step->state->cells[IS_MAPPED + map] = 0;
        explorer_goto(step, RELEASE_LOCK, "U4 unmaps");
        break;
    case RELEASE_LOCK:
        release_lock(step);
        break;
    }
}

static void take_step(struct explorer_step *step, unsigned thread)
{
    if (thread == UNMAPPER)
        unmapper_step(step);
    else
        reader_step(step);
}

static const char *const thread_names[THREAD_COUNT] = {"reader one", "reader two", "unmapper"};

static const struct explorer_protocol protocol = {
    .name = "unmap",
    .thread_names = thread_names,
    .thread_count = THREAD_COUNT,
    .initialise = initialise,
    .step = take_step,
    .broken_rule = broken_rule,
};

static const struct explorer_variant variants[] = {
    {"as designed", 0, true, true},
    {"as designed, over a stale map", STALE, true, true},
    {"the reader's add is not ordered before its load", RELAXED_ADD, true, false},
    {"the reader loads the pointer before it leases", POINTER_FIRST, false, false},
    {"the reader loads the pointer once, over a stale map", POINTER_READ_ONCE | STALE, false, false},
    {"the reader does not compare epochs, over a stale map", EPOCH_NOT_READ | STALE, false, false},
    {"the unmapper has no fence", NO_FENCE, true, false},
    {"the unmapper does not look at the lease", LEASE_NOT_READ, false, false},
    {"the unmapper looks at the lease before it clears the pointer", LEASE_READ_FIRST, false, false},
    {"the slow path takes no lock", SLOW_PATH_UNLOCKED, false, false},
};

EXPLORER_MAIN(protocol, variants)
