/* Classifies digits with the exported net.
 *
 *   cc -O2 -I ../../../build/embed/net classify.c ../../../build/embed/net/libnet.a -o classify
 *   ./classify ../../../build/embed/net/net.safetensors ../../../build/embed/digits.bin
 */
#include "../digits.h"
#include "net.h"

#define BATCH 64

/* Sizes are known when this is compiled: nothing is allocated. */
static _Alignas(NET_ALIGN) unsigned char prepared[NET_PREPARED_BYTES];
static _Alignas(NET_ALIGN) unsigned char workspace[NET_WORKSPACE_BYTES(BATCH, 1)];

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: classify net.safetensors digits.bin\n");
        return 2;
    }
    size_t bytes;
    unsigned char *file = read_file(arguments[1], &bytes);
    int code = net_prepare(file, bytes, prepared, sizeof prepared);
    free(file);
    struct digits digits = read_digits(arguments[2]);
    int correct = 0;
    for (int first = 0; first < digits.count && code == NET_OK; first += BATCH) {
        float scores[BATCH * 10];
        int batch = digits.count - first < BATCH ? digits.count - first : BATCH;
        code = net_run(prepared, digits.images + (size_t)first * PIXELS, scores, batch, workspace,
                       sizeof workspace);
        for (int k = 0; k < batch && code == NET_OK; k++)
            correct += largest(scores + 10 * k) == digits.labels[first + k];
    }
    if (code != NET_OK) {
        fprintf(stderr, "%s\n", net_strerror(code));
        return 1;
    }
    printf("%d of %d digits are right\n", correct, (int)digits.count);
    return 0;
}
