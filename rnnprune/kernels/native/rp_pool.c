#define _GNU_SOURCE
#include "rp_pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "rp_memory.h"

#define SPINS_BEFORE_YIELD 2000   /* some 10 us: longer than the unevenness of one step */
#define YIELDS_BEFORE_SLEEP 50    /* between jobs a team stays awake this long, then sleeps */

struct rp_pool {
    size_t threads;
    pid_t owner; /* fork copies the pool but not its threads */
    rp_job job;
    void *context;
    _Alignas(64) atomic_size_t arrived;
    _Alignas(64) atomic_uint round;      /* of the barrier */
    _Alignas(64) atomic_uint job_number; /* rises when a job starts */
    _Alignas(64) atomic_size_t sleepers;
    atomic_bool stop;
    pthread_mutex_t turn, sleep;
    pthread_cond_t wake;
    pthread_t workers[RP_MAX_THREADS];
};

typedef struct {
    rp_pool *pool;
    size_t thread;
} worker_start;

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Waits until *counter differs from seen; gives up after `yields` yields. */
static bool wait_for_change(atomic_uint *counter, unsigned seen, size_t yields) {
    for (size_t spin = 0; spin < SPINS_BEFORE_YIELD; spin++) {
        if (atomic_load_explicit(counter, memory_order_acquire) != seen) return true;
        relax();
    }
    for (size_t i = 0; i < yields; i++) {
        if (atomic_load_explicit(counter, memory_order_acquire) != seen) return true;
        sched_yield();
    }
    return false;
}

void rp_pool_barrier(rp_pool *pool) {
    if (pool->threads == 1) return;
    unsigned round = atomic_load_explicit(&pool->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) + 1 == pool->threads) {
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&pool->round, round + 1, memory_order_release);
    } else {
        (void)wait_for_change(&pool->round, round, SIZE_MAX);
    }
}

static void wait_for_job(rp_pool *pool, unsigned seen) {
    if (wait_for_change(&pool->job_number, seen, YIELDS_BEFORE_SLEEP)) return;
    pthread_mutex_lock(&pool->sleep);
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(&pool->job_number) == seen) pthread_cond_wait(&pool->wake, &pool->sleep);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->sleep);
}

static void start_job(rp_pool *pool) {
    atomic_fetch_add(&pool->job_number, 1);
    if (atomic_load(&pool->sleepers) == 0) return;
    pthread_mutex_lock(&pool->sleep); /* a sleeper is either in cond_wait by now or has seen the new number */
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->sleep);
}

static void *work(void *argument) {
    worker_start start = *(worker_start *)argument;
    rp_free(argument);
    rp_pool *pool = start.pool;
    for (unsigned seen = 0;; seen++) {
        wait_for_job(pool, seen);
        if (atomic_load(&pool->stop)) return NULL;
        pool->job(pool->context, start.thread);
        rp_pool_barrier(pool);
    }
}

rp_status rp_pool_run(rp_pool *pool, rp_job job, void *context) {
    if (pool->threads == 1) {
        job(context, 0);
        return RP_OK;
    }
    if (pool->owner != getpid()) return RP_NO_THREAD;
    pthread_mutex_lock(&pool->turn);
    pool->job = job;
    pool->context = context;
    start_job(pool);
    job(context, 0);
    rp_pool_barrier(pool);
    pthread_mutex_unlock(&pool->turn);
    return RP_OK;
}

static bool start_worker(rp_pool *pool, size_t thread) {
    worker_start *start = rp_alloc(1, sizeof *start);
    if (!start) return false;
    *start = (worker_start){pool, thread};
    if (pthread_create(&pool->workers[thread], NULL, work, start) == 0) return true;
    rp_free(start);
    return false;
}

/* Stops the first `started` workers; thread 0 is the caller and needs no stopping. */
static void stop_workers(rp_pool *pool, size_t started) {
    atomic_store(&pool->stop, true);
    start_job(pool);
    for (size_t thread = 1; thread < started; thread++) pthread_join(pool->workers[thread], NULL);
}

rp_status rp_pool_new(rp_pool **result, size_t threads) {
    if (threads == 0 || threads > RP_MAX_THREADS) return RP_BAD_ARGUMENT;
    rp_pool *pool = *result = rp_alloc(1, sizeof *pool);
    if (!pool) return RP_NO_MEMORY;
    pool->threads = threads;
    pool->owner = getpid();
    pthread_mutex_init(&pool->turn, NULL);
    pthread_mutex_init(&pool->sleep, NULL);
    pthread_cond_init(&pool->wake, NULL);
    for (size_t thread = 1; thread < threads; thread++) {
        if (start_worker(pool, thread)) continue;
        stop_workers(pool, thread);
        pool->threads = 1;
        rp_pool_free(pool);
        *result = NULL;
        return RP_NO_THREAD;
    }
    return RP_OK;
}

void rp_pool_free(rp_pool *pool) {
    if (!pool || pool->owner != getpid()) return; /* in a child its locks may be held for ever: leave it */
    if (pool->threads > 1) stop_workers(pool, pool->threads);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->sleep);
    pthread_mutex_destroy(&pool->turn);
    rp_free(pool);
}

size_t rp_pool_threads(const rp_pool *pool) { return pool->threads; }
