/* How long a training step of 64 images takes, on one and on two threads of a spinning pool. Prints the least times in
 * microseconds.
 *
 *   cc -O2 -pthread -I ../../../build/embed/train step_speed.c ../../../build/embed/train/libtrain.a -o step_speed
 *   ./step_speed ../../../build/embed/train/train.safetensors ../../../build/embed/digits.bin
 */
#include "../digits.h"
#include "pool.h"
#include "train.h"

#define BATCH 64
#define RUNS 300

static _Alignas(TRAIN_ALIGN) unsigned char state[TRAIN_STATE_BYTES], workspace[TRAIN_WORKSPACE_BYTES(BATCH, 2)];

static void check(int code) {
    if (code != TRAIN_OK) {
        fprintf(stderr, "%s\n", train_strerror(code));
        exit(1);
    }
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: step_speed train.safetensors digits.bin\n");
        return 2;
    }
    size_t bytes;
    unsigned char *file = read_file(arguments[1], &bytes);
    check(train_state_init(state, sizeof state, file, bytes, 1));
    free(file);
    struct digits digits = read_digits(arguments[2]);
    int64_t labels[BATCH];
    for (int k = 0; k < BATCH; k++) labels[k] = digits.labels[k];
    pthread_t thread;
    if (pthread_create(&thread, NULL, follow, NULL) != 0) return 1;
    double least[2] = {1e18, 1e18};
    float loss;
    for (int run = 0; run < 2 * RUNS; run++) {
        double start = now();
        if (run % 2)
            check(train_step_parallel(state, digits.images, labels, &loss, 0.01, BATCH, 2, workspace, sizeof workspace,
                                      parallel_for, NULL));
        else
            check(train_step(state, digits.images, labels, &loss, 0.01, BATCH, workspace, sizeof workspace));
        double taken = now() - start;
        if (taken < least[run % 2]) least[run % 2] = taken;
    }
    printf("a step %.0f, on two threads %.0f\n", least[0], least[1]);
    exit(0); /* With the other thread still waiting. */
}
