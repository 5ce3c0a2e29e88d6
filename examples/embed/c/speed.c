/* How long runs take: one image, and a batch of 64 on one and on two threads of a spinning pool. Prints the least times
 * in microseconds.
 *
 *   cc -O2 -pthread -I ../../../build/embed/net speed.c ../../../build/embed/net/libnet.a -o speed
 *   ./speed ../../../build/embed/net/net.safetensors ../../../build/embed/digits.bin
 */
#include "../digits.h"
#include "net.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#define BATCH 64
#define RUNS 500

static _Alignas(NET_ALIGN) unsigned char prepared[NET_PREPARED_BYTES];
static _Alignas(NET_ALIGN) unsigned char workspace[NET_WORKSPACE_BYTES(BATCH, 2)], small[NET_WORKSPACE_BYTES(1, 1)];
static float scores[BATCH * 10];

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

static void check(int code) {
    if (code != NET_OK) {
        fprintf(stderr, "%s\n", net_strerror(code));
        exit(1);
    }
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: speed net.safetensors digits.bin\n");
        return 2;
    }
    size_t bytes;
    unsigned char *file = read_file(arguments[1], &bytes);
    check(net_prepare(file, bytes, prepared, sizeof prepared));
    free(file);
    struct digits digits = read_digits(arguments[2]);
    pthread_t thread;
    if (pthread_create(&thread, NULL, follow, NULL) != 0) return 1;
    double least[3] = {1e18, 1e18, 1e18};
    for (int run = 0; run < RUNS; run++) {
        for (int kind = 0; kind < 3; kind++) {
            double start = now();
            for (int again = 0; again < (kind ? 1 : 20); again++) {
                if (kind == 0) check(net_run(prepared, digits.images, scores, 1, small, sizeof small));
                if (kind == 1) check(net_run(prepared, digits.images, scores, BATCH, workspace, sizeof workspace));
                if (kind == 2)
                    check(net_run_parallel(prepared, digits.images, scores, BATCH, 2, workspace, sizeof workspace,
                                           parallel_for, NULL));
            }
            double taken = (now() - start) / (kind ? 1 : 20);
            if (taken < least[kind]) least[kind] = taken;
        }
    }
    printf("one image %.1f, batch of 64 %.1f, on two threads %.1f\n", least[0], least[1], least[2]);
    exit(0); /* With the other thread still waiting. */
}
