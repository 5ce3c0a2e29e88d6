/* Calls an exported training step ten thousand times, with files and arguments that are wrong in some way.
 *
 *   program weights calls seed
 *
 * As fuzz.c does for a model: every call comes back with a code and touches only what it was given. What fails leaves
 * the state as it was. Written for the model `small` of test_training.py.
 */
#include "net.h"
#include "fuzzing.h"

#define IMAGE 64

int main(int count, char **arguments) {
    if (count != 4) return 2;
    FILE *stream = fopen(arguments[1], "rb");
    static unsigned char original[1 << 16];
    size_t length = stream ? fread(original, 1, sizeof original, stream) : 0, need = NET_WORKSPACE_BYTES(NET_MAX_BATCH, 1);
    long calls = atol(arguments[2]), codes[16] = {0};
    state = (uint64_t)atoll(arguments[3]) * 2 + 1;
    unsigned char *block = fenced(NET_STATE_BYTES), *before = fenced(NET_STATE_BYTES), *space = fenced(need);
    unsigned char *gradients = fenced(NET_GRADIENT_BYTES), *file = fenced(NET_FILE_BYTES);
    float *image = (float *)(void *)fenced(sizeof(float) * IMAGE * NET_MAX_BATCH);
    int64_t *target = (int64_t *)(void *)fenced(sizeof(int64_t) * NET_MAX_BATCH);
    float *loss = (float *)(void *)fenced(sizeof(float));
    for (int k = 0; k < IMAGE * NET_MAX_BATCH; k++) image[k] = (float)draw(1000) / 500 - 1;
    if (net_state_init(block, NET_STATE_BYTES, original, length, 5) != NET_OK) return 4;
#define EITHER(pointer) (draw(40) ? (pointer) : NULL)
    for (long call = 0; call < calls; call++) {
        int code, kind = (int)draw(6);
        memcpy(before, block, NET_STATE_BYTES);
        if (kind < 2) { /* A file. */
            unsigned char *copy = malloc(length + 1);
            memcpy(copy, original, length);
            size_t bytes = mutate(copy, length);
            unsigned char *exact = malloc(bytes ? bytes : 1);
            memcpy(exact, copy, bytes);
            code = net_state_init(before, (size_t)PICK(NET_STATE_BYTES, NET_STATE_BYTES, 0, NET_STATE_BYTES - 1),
                                  EITHER(exact), bytes, PICK(-1, 0, 7, INT64_MAX, INT64_MIN));
            free(copy);
            free(exact);
        } else {
            for (int k = 0; k < NET_MAX_BATCH; k++)
                target[k] = draw(40) ? (int64_t)draw(5) : PICK(5, -1, INT64_MAX, INT64_MIN, 1 << 30);
            if (draw(4) == 0) block[draw(48)] ^= (unsigned char)(1 + draw(255));
            int64_t batch = PICK(1, 2, 3, NET_MAX_BATCH, NET_MAX_BATCH, 0, -1, NET_MAX_BATCH + 1, INT64_MIN, INT64_MAX);
            size_t bytes = draw(4) ? need : (size_t)PICK(0, 1, (int64_t)need - 1, (int64_t)need / 2);
            unsigned char *work = draw(40) ? space : draw(2) ? NULL : space + 8;
            double rate = (double)draw(100) / 1000;
            memset(space, (int)draw(256), need);
            if (kind == 2) code = net_grad(block, EITHER(image), EITHER(target), EITHER(loss), EITHER(gradients), batch, work, bytes);
            else if (kind == 3) code = net_apply(block, draw(40) ? gradients : gradients + 1, rate, work, bytes);
            else if (kind == 4) code = net_step(block, EITHER(image), EITHER(target), EITHER(loss), rate, batch, work, bytes);
            else code = net_state_export(block, EITHER(file), (size_t)PICK(NET_FILE_BYTES, NET_FILE_BYTES - 1, 0));
            if (code != NET_OK) { /* Nothing but the byte that was changed above differs. */
                int changed = 0;
                for (size_t k = 0; k < NET_STATE_BYTES; k++) changed += block[k] != before[k];
                if (changed > 1) {
                    printf("call %ld gave %d and changed the state\n", call, code);
                    return 1;
                }
                memcpy(block, before, NET_STATE_BYTES);
            }
        }
        if (code < 0 || code > 15 || strcmp(net_strerror(code), net_strerror(-1)) == 0) {
            printf("call %ld gave %d\n", call, code);
            return 1;
        }
        codes[code]++;
    }
    for (int code = 0; code < 16; code++)
        if (codes[code]) printf("%ld times %s\n", codes[code], net_strerror(code));
    return codes[NET_OK] == 0 || codes[NET_EWEIGHTS] == 0 || codes[NET_EINDEX] == 0;
}
