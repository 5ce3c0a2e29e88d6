/* How long runs take: one image, and a batch of 64 on one and on two threads of a spinning pool. Prints the least times
 * in microseconds.
 *
 *   cc -O2 -pthread -I ../../../build/embed/net speed.c ../../../build/embed/net/libnet.a -o speed
 *   ./speed ../../../build/embed/net/net.safetensors ../../../build/embed/digits.bin
 */
#include "../digits.h"
#include "net.h"
#include "pool.h"

#define BATCH 64
#define RUNS 500

static _Alignas(NET_ALIGN) unsigned char prepared[NET_PREPARED_BYTES];
static _Alignas(NET_ALIGN) unsigned char workspace[NET_WORKSPACE_BYTES(BATCH, 2)], small[NET_WORKSPACE_BYTES(1, 1)];
static float scores[BATCH * 10];

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
