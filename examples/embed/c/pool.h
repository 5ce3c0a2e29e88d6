/* A pool of two threads, as small as one can be, and a clock: for the programs here that measure. */
#ifndef POOL_H
#define POOL_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

typedef void body_function(void *context, int64_t piece, int64_t worker);

/* A pool of two: the caller and one thread that waits for the next turn. Fields that different threads write lie
 * apart. */
static struct pool {
    _Alignas(128) atomic_long turn;
    _Alignas(128) atomic_long next;
    _Alignas(128) atomic_long done;
    _Alignas(128) long pieces;
    body_function *body;
    void *context;
} shared;

static void work(int64_t worker) {
    long piece;
    while ((piece = atomic_fetch_add(&shared.next, 1)) < shared.pieces) shared.body(shared.context, piece, worker);
}

static void *follow(void *argument) {
    for (long seen = 0;; seen++) {
        for (long spins = 0; atomic_load(&shared.turn) == seen; spins++)
            if (spins > 10000) sched_yield();
        work(1);
        atomic_fetch_add(&shared.done, 1);
    }
    return argument;
}

static void parallel_for(void *pool, int64_t pieces, body_function *body, void *context) {
    (void)pool;
    shared.pieces = (long)pieces, shared.body = body, shared.context = context;
    atomic_store(&shared.next, 0);
    atomic_store(&shared.done, 0);
    atomic_fetch_add(&shared.turn, 1);
    work(0);
    while (atomic_load(&shared.done) == 0)
        ;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec * 1e-3;
}

#endif
