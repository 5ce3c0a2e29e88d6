/* Calls an exported library ten thousand times and more, with files and arguments that are wrong in some way.
 *
 *   program weights calls seed
 *
 * Every call must come back with a code, and must not touch what it was not given: blocks end at pages that may not
 * be touched. Compiled with sanitizers for what happens outside the library. Written for the model `lookup` of
 * test_export.py: int64 [batch, 4] in, three outputs.
 */
#include "net.h"
#include "fuzzing.h"

int main(int count, char **arguments) {
    if (count != 4) return 2;
    FILE *stream = fopen(arguments[1], "rb");
    static unsigned char original[1 << 16];
    size_t length = stream ? fread(original, 1, sizeof original, stream) : 0;
    long calls = atol(arguments[2]), codes[16] = {0};
    state = (uint64_t)atoll(arguments[3]) * 2 + 1;
    unsigned char *prepared = fenced(NET_PREPARED_BYTES), *spare = fenced(NET_PREPARED_BYTES);
    size_t need = NET_WORKSPACE_BYTES(NET_MAX_BATCH, 1);
    unsigned char *space = fenced(need);
    int64_t *index = (int64_t *)(void *)fenced(sizeof(int64_t) * 4 * NET_MAX_BATCH);
    float *best = (float *)(void *)fenced(sizeof(float) * 4 * NET_MAX_BATCH);
    int64_t *where = (int64_t *)(void *)fenced(sizeof(int64_t) * 4 * NET_MAX_BATCH);
    uint8_t *above = fenced(24 * NET_MAX_BATCH);
    if (net_prepare(original, length, prepared, NET_PREPARED_BYTES) != NET_OK) return 4;
    for (long call = 0; call < calls; call++) {
        int code;
        if (call % 2) { /* A file. */
            unsigned char *copy = malloc(length + 1);
            memcpy(copy, original, length);
            size_t bytes = mutate(copy, length);
            unsigned char *exact = malloc(bytes ? bytes : 1); /* So that a sanitizer sees reads past its end. */
            memcpy(exact, copy, bytes);
            code = net_prepare(draw(50) ? exact : NULL, bytes, draw(50) ? spare : spare + PICK(1, 4, 8, 32),
                               (size_t)PICK(NET_PREPARED_BYTES, NET_PREPARED_BYTES, NET_PREPARED_BYTES, 0, 63,
                                            NET_PREPARED_BYTES - 1));
            free(copy);
            free(exact);
        } else { /* A run. */
            for (int k = 0; k < 4 * NET_MAX_BATCH; k++)
                index[k] = draw(30) ? (int64_t)draw(9) : PICK(9, -1, INT64_MAX, INT64_MIN, 1 << 30);
            memcpy(spare, prepared, NET_PREPARED_BYTES);
            if (draw(4) == 0) spare[draw(48)] ^= (unsigned char)(1 + draw(255));
            int64_t batch = PICK(1, 1, 2, 3, NET_MAX_BATCH, NET_MAX_BATCH, 0, -1, NET_MAX_BATCH + 1, INT64_MIN, INT64_MAX);
            size_t bytes = draw(3) ? need : (size_t)PICK(0, 1, (int64_t)need - 1, (int64_t)need / 2);
            memset(space, (int)draw(256), need);
#define EITHER(pointer) (draw(40) ? (pointer) : NULL)
            code = net_run(draw(40) ? spare : draw(2) ? NULL : spare + PICK(1, 8, 32), EITHER(index), EITHER(best),
                           EITHER(where), EITHER(above), batch, draw(40) ? space : draw(2) ? NULL : space + 8, bytes);
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
