/* A team of threads that waits between jobs, and its barrier. One job at a time; a second caller waits its turn.
 * Thread 0 is the caller. A team of one starts no thread at all. A forked child must make its own team. */
#ifndef RP_POOL_H
#define RP_POOL_H

#include "rp_types.h"

#define RP_MAX_THREADS 256

typedef struct rp_pool rp_pool;
typedef void (*rp_job)(void *context, size_t thread);

rp_status rp_pool_new(rp_pool **pool, size_t threads);
void rp_pool_free(rp_pool *pool);
size_t rp_pool_threads(const rp_pool *pool);

/* Runs job(context, 0 .. threads - 1) and returns when all are done. RP_NO_THREAD in a forked child. */
rp_status rp_pool_run(rp_pool *pool, rp_job job, void *context);

/* Called by every thread of a running job: nobody leaves before all have come. Spins, then yields. */
void rp_pool_barrier(rp_pool *pool);

#endif
