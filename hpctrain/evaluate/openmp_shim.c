/* SPDX-License-Identifier: Apache-2.0 */
/* A small OpenMP runtime on plain pthreads, for looking for data races: ThreadSanitizer understands every lock and
 * barrier in it, where it takes those of libgomp for none. It has what loops, sections, single, critical, atomic and
 * locks need; a unit that needs more does not link, and is then reported as not looked at. */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

typedef unsigned long long ull;

struct share { /* a work-sharing construct: which numbers are left */
    bool begun;
    int arrived;
    long next, end, step, chunk;
    ull unext, uend, ustep, uchunk;
    bool up;
};
enum { SHARES = 64 };
struct team {
    int size;
    void (*body)(void *);
    void *data;
    pthread_barrier_t barrier;
    pthread_mutex_t lock;
    struct share shares[SHARES];
    void *copied;
};
struct member {
    struct team *team;
    int number;
    unsigned construct;
};

static _Thread_local struct member self;
static int wanted = 0;
static pthread_mutex_t critical = PTHREAD_MUTEX_INITIALIZER, atomic = PTHREAD_MUTEX_INITIALIZER;

static int team_size(unsigned asked)
{
    const char *text = getenv("OMP_NUM_THREADS");
    if (self.team != NULL)
        return 1; /* nested regions run on one thread */
    return asked ? (int)asked : wanted ? wanted : text ? atoi(text) : 2;
}

static void *enter(void *argument)
{
    self = *(struct member *)argument;
    self.team->body(self.team->data);
    return NULL;
}

static void run(void (*body)(void *), void *data, unsigned asked, const struct share *first)
{
    struct member outer = self;
    int size = team_size(asked);
    struct team *team = calloc(1, sizeof *team);
    struct member *members = calloc((size_t)size, sizeof *members);
    pthread_t *threads = calloc((size_t)size, sizeof *threads);

    team->size = size;
    team->body = body;
    team->data = data;
    pthread_mutex_init(&team->lock, NULL);
    pthread_barrier_init(&team->barrier, NULL, (unsigned)size);
    if (first != NULL)
        team->shares[1] = *first;
    for (int i = 0; i < size; ++i)
        members[i] = (struct member){team, i, first != NULL};
    for (int i = 1; i < size; ++i)
        if (pthread_create(&threads[i], NULL, enter, &members[i]) != 0)
            abort();
    enter(&members[0]);
    for (int i = 1; i < size; ++i)
        pthread_join(threads[i], NULL);
    self = outer;
    pthread_barrier_destroy(&team->barrier);
    pthread_mutex_destroy(&team->lock);
    free(threads);
    free(members);
    free(team);
}

static struct team *alone(void)
{
    static _Thread_local struct team team;
    static _Thread_local bool ready;
    if (!ready) {
        team.size = 1;
        pthread_mutex_init(&team.lock, NULL);
        pthread_barrier_init(&team.barrier, NULL, 1);
        ready = true;
    }
    return self.team ? self.team : &team;
}

void GOMP_parallel(void (*body)(void *), void *data, unsigned threads, unsigned flags)
{
    (void)flags;
    run(body, data, threads, NULL);
}

void GOMP_barrier(void) { pthread_barrier_wait(&alone()->barrier); }
void GOMP_critical_start(void) { pthread_mutex_lock(&critical); }
void GOMP_critical_end(void) { pthread_mutex_unlock(&critical); }
void GOMP_critical_name_start(void **name) { (void)name; GOMP_critical_start(); }
void GOMP_critical_name_end(void **name) { (void)name; GOMP_critical_end(); }
void GOMP_atomic_start(void) { pthread_mutex_lock(&atomic); }
void GOMP_atomic_end(void) { pthread_mutex_unlock(&atomic); }

/* The thread's next construct; the first to come fills it in, the last to leave empties it for its next use. */
static struct share *meet(void)
{
    struct team *team = alone();
    self.construct++;
    pthread_mutex_lock(&team->lock);
    return &team->shares[self.construct % SHARES];
}
static struct share *current(void)
{
    struct team *team = alone();
    pthread_mutex_lock(&team->lock);
    return &team->shares[self.construct % SHARES];
}
static void done(void) { pthread_mutex_unlock(&alone()->lock); }
static void leave(void)
{
    struct share *share = current();
    if (++share->arrived == alone()->size)
        *share = (struct share){0};
    done();
}

bool GOMP_single_start(void)
{
    struct share *share = meet();
    bool first = !share->begun;
    share->begun = true;
    done();
    leave();
    return first;
}
void *GOMP_single_copy_start(void)
{
    if (GOMP_single_start())
        return NULL;
    GOMP_barrier();
    return alone()->copied;
}
void GOMP_single_copy_end(void *data)
{
    alone()->copied = data;
    GOMP_barrier();
}

static void fill(struct share *share, long start, long end, long step, long chunk)
{
    long count = step > 0 ? (end - start + step - 1) / step : (start - end - step - 1) / -step;
    if (share->begun)
        return;
    if (chunk < 1) { /* static, or guided: as many pieces as threads, four each, so that all get some */
        chunk = count / (alone()->size * 4L);
        chunk = chunk < 1 ? 1 : chunk;
    }
    *share = (struct share){.begun = true, .next = start, .end = end, .step = step, .chunk = chunk};
}
static bool take(struct share *share, long *from, long *to)
{
    bool up = share->step > 0, some = up ? share->next < share->end : share->next > share->end;
    if (some) {
        *from = share->next;
        *to = *from + share->step * share->chunk;
        if (up ? *to > share->end : *to < share->end)
            *to = share->end;
        share->next = *to;
    }
    return some;
}

bool GOMP_loop_dynamic_next(long *from, long *to)
{
    struct share *share = current();
    bool some = take(share, from, to);
    done();
    return some;
}
bool GOMP_loop_dynamic_start(long start, long end, long step, long chunk, long *from, long *to)
{
    struct share *share = meet();
    fill(share, start, end, step, chunk);
    bool some = take(share, from, to);
    done();
    return some;
}
void GOMP_loop_end_nowait(void) { leave(); }
void GOMP_loop_end(void)
{
    leave();
    GOMP_barrier();
}

#define LOOP(kind) \
    bool GOMP_loop_##kind##_start(long a, long b, long c, long d, long *from, long *to) \
    { return GOMP_loop_dynamic_start(a, b, c, d, from, to); } \
    bool GOMP_loop_##kind##_next(long *from, long *to) { return GOMP_loop_dynamic_next(from, to); } \
    void GOMP_parallel_loop_##kind(void (*body)(void *), void *data, unsigned threads, long start, long end, \
                                   long step, long chunk, unsigned flags) \
    { \
        struct share first = {0}; \
        (void)flags; \
        if (chunk < 1) \
            chunk = 1; \
        first = (struct share){.begun = true, .next = start, .end = end, .step = step, .chunk = chunk}; \
        run(body, data, threads, &first); \
    }
#define LOOP_WITHOUT_CHUNK(kind) \
    bool GOMP_loop_##kind##_start(long a, long b, long c, long *from, long *to) \
    { return GOMP_loop_dynamic_start(a, b, c, 1, from, to); } \
    bool GOMP_loop_##kind##_next(long *from, long *to) { return GOMP_loop_dynamic_next(from, to); } \
    void GOMP_parallel_loop_##kind(void (*body)(void *), void *data, unsigned threads, long start, long end, \
                                   long step, unsigned flags) \
    { \
        struct share first = {.begun = true, .next = start, .end = end, .step = step, .chunk = 1}; \
        (void)flags; \
        run(body, data, threads, &first); \
    }
LOOP(static)
LOOP(guided)
LOOP(nonmonotonic_dynamic)
LOOP(nonmonotonic_guided)
LOOP_WITHOUT_CHUNK(runtime)
LOOP_WITHOUT_CHUNK(nonmonotonic_runtime)
LOOP_WITHOUT_CHUNK(maybe_nonmonotonic_runtime)
void GOMP_parallel_loop_dynamic(void (*body)(void *), void *data, unsigned threads, long start, long end, long step,
                                long chunk, unsigned flags)
{
    GOMP_parallel_loop_guided(body, data, threads, start, end, step, chunk, flags);
}

bool GOMP_loop_ull_dynamic_next(ull *from, ull *to)
{
    struct share *share = current();
    bool some = share->up ? share->unext < share->uend : share->unext > share->uend;
    if (some) {
        ull left = share->up ? share->uend - share->unext : share->unext - share->uend;
        ull step = share->up ? share->ustep : -share->ustep;
        *from = share->unext;
        *to = left / step < share->uchunk ? share->uend : *from + share->ustep * share->uchunk;
        share->unext = *to;
    }
    done();
    return some;
}
bool GOMP_loop_ull_dynamic_start(bool up, ull start, ull end, ull step, ull chunk, ull *from, ull *to)
{
    struct share *share = meet();
    if (!share->begun)
        *share = (struct share){.begun = true, .up = up, .unext = start, .uend = end, .ustep = step,
                                .uchunk = chunk ? chunk : 1};
    done();
    return GOMP_loop_ull_dynamic_next(from, to);
}
#define LOOP_ULL(kind) \
    bool GOMP_loop_ull_##kind##_start(bool up, ull a, ull b, ull c, ull d, ull *from, ull *to) \
    { return GOMP_loop_ull_dynamic_start(up, a, b, c, d, from, to); } \
    bool GOMP_loop_ull_##kind##_next(ull *from, ull *to) { return GOMP_loop_ull_dynamic_next(from, to); }
LOOP_ULL(static)
LOOP_ULL(guided)
LOOP_ULL(nonmonotonic_dynamic)
LOOP_ULL(nonmonotonic_guided)

unsigned GOMP_sections_next(void)
{
    long from, to;
    return GOMP_loop_dynamic_next(&from, &to) ? (unsigned)from : 0;
}
unsigned GOMP_sections_start(unsigned count)
{
    long from, to;
    return GOMP_loop_dynamic_start(1, (long)count + 1, 1, 1, &from, &to) ? (unsigned)from : 0;
}
void GOMP_sections_end(void) { GOMP_loop_end(); }
void GOMP_sections_end_nowait(void) { leave(); }
void GOMP_parallel_sections(void (*body)(void *), void *data, unsigned threads, unsigned count, unsigned flags)
{
    struct share first = {.begun = true, .next = 1, .end = (long)count + 1, .step = 1, .chunk = 1};
    (void)flags;
    run(body, data, threads, &first);
}

int omp_get_thread_num(void) { return self.team ? self.number : 0; }
int omp_get_num_threads(void) { return self.team ? self.team->size : 1; }
int omp_get_max_threads(void) { return team_size(0); }
int omp_get_num_procs(void) { return team_size(0); }
int omp_in_parallel(void) { return self.team != NULL && self.team->size > 1; }
int omp_get_level(void) { return self.team != NULL; }
int omp_get_thread_limit(void) { return 1024; }
void omp_set_num_threads(int threads) { wanted = threads; }
void omp_set_dynamic(int dynamic) { (void)dynamic; }
double omp_get_wtime(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

typedef pthread_mutex_t *lock_t;
void omp_init_lock(lock_t *lock)
{
    *lock = malloc(sizeof **lock);
    pthread_mutex_init(*lock, NULL);
}
void omp_destroy_lock(lock_t *lock) { free(*lock); }
void omp_set_lock(lock_t *lock) { pthread_mutex_lock(*lock); }
void omp_unset_lock(lock_t *lock) { pthread_mutex_unlock(*lock); }
int omp_test_lock(lock_t *lock) { return pthread_mutex_trylock(*lock) == 0; }

int omp_get_thread_num_(void) { return omp_get_thread_num(); }
int omp_get_num_threads_(void) { return omp_get_num_threads(); }
int omp_get_max_threads_(void) { return omp_get_max_threads(); }
int omp_get_num_procs_(void) { return omp_get_num_procs(); }
int omp_in_parallel_(void) { return omp_in_parallel(); }
void omp_set_num_threads_(const int *threads) { omp_set_num_threads(*threads); }
double omp_get_wtime_(void) { return omp_get_wtime(); }
