/* Goes on training, in C: the state is one block of memory, written to a file at the end.
 *
 *   cc -O2 -I ../../../build/embed/train continue.c ../../../build/embed/train/libtrain.a -lm -o continue
 *   ./continue ../../../build/embed/train/train.safetensors ../../../build/embed/training.bin trained.safetensors
 */
#include "../digits.h"
#include "train.h"
#include <string.h>

#define BATCH 64
#define EPOCHS 8

static _Alignas(TRAIN_ALIGN) unsigned char state[TRAIN_STATE_BYTES];
static _Alignas(TRAIN_ALIGN) unsigned char workspace[TRAIN_WORKSPACE_BYTES(BATCH, 1)];
static unsigned char result[TRAIN_FILE_BYTES];
static float images[BATCH * PIXELS];
static int64_t labels[BATCH];

static void check(int code) {
    if (code != TRAIN_OK) {
        fprintf(stderr, "%s\n", train_strerror(code));
        exit(1);
    }
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "usage: continue train.safetensors training.bin result.safetensors\n");
        return 2;
    }
    size_t bytes;
    unsigned char *file = read_file(arguments[1], &bytes);
    check(train_state_init(state, sizeof state, file, bytes, 1));
    free(file);
    struct digits digits = read_digits(arguments[2]);
    int *order = malloc(sizeof(int) * (size_t)digits.count);
    if (order == NULL) return 2;
    for (int k = 0; k < digits.count; k++) order[k] = k;
    double rate = 0.05;
    for (int epoch = 0; epoch < EPOCHS; epoch++, rate *= 0.9) {
        for (int k = digits.count - 1; k > 0; k--) { /* Another order each time. */
            int other = rand() % (k + 1), kept = order[k];
            order[k] = order[other];
            order[other] = kept;
        }
        double total = 0;
        int batches = digits.count / BATCH;
        for (int number = 0; number < batches; number++) {
            for (int k = 0; k < BATCH; k++) {
                int chosen = order[number * BATCH + k];
                memcpy(images + k * PIXELS, digits.images + (size_t)chosen * PIXELS, PIXELS * sizeof(float));
                labels[k] = digits.labels[chosen];
            }
            float loss;
            check(train_step(state, images, labels, &loss, rate, BATCH, workspace, sizeof workspace));
            total += loss;
        }
        printf("epoch %d: loss %.4f\n", epoch + 1, total / batches);
    }
    free(order);
    check(train_state_export(state, result, sizeof result));
    FILE *out = fopen(arguments[3], "wb");
    if (out == NULL || fwrite(result, 1, sizeof result, out) != sizeof result || fclose(out) != 0) {
        fprintf(stderr, "cannot write %s\n", arguments[3]);
        return 1;
    }
    return 0;
}
