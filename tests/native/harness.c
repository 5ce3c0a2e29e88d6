/* Runs an exported library on inputs from files. Compiled with -DNAME=..., -DINPUTS=..., and the header's name.
 *
 *   program weights workspace_bytes batch output_bytes... -- input... -- output...
 *
 * Every block ends exactly at a page that may not be touched; the workspace also begins after one.
 */
#include HEADER
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define RUN JOIN(NAME, _run)
#define PREPARE JOIN(NAME, _prepare)
#define WORKSPACE JOIN(NAME, _workspace_bytes)

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

/* `bytes` bytes that end at a forbidden page, after another one. */
static char *fenced(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t pages = (bytes + page - 1) / page;
    char *start = mmap(NULL, (pages + 2) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED || mprotect(start + page, pages * page, PROT_READ | PROT_WRITE) != 0) fail("no memory");
    memset(start + page, 0xA5, pages * page);
    return start + page + pages * page - bytes;
}

static char *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) fail(path);
    *bytes = (size_t)ftell(file);
    rewind(file);
    char *block = fenced(*bytes);
    if (fread(block, 1, *bytes, file) != *bytes) fail(path);
    fclose(file);
    return block;
}

int main(int count, char **arguments) {
    size_t weights_bytes, workspace_bytes = strtoull(arguments[2], NULL, 10);
    int64_t batch = strtoll(arguments[3], NULL, 10);
    char *file = read_file(arguments[1], &weights_bytes);
    void *weights = fenced(weights_bytes);
    void *p[8];
    size_t lengths[8];
    int inputs = 0, outputs = 0, next = 4;
    for (; strcmp(arguments[next], "--") != 0; next++) lengths[outputs++] = strtoull(arguments[next], NULL, 10);
    for (next++; strcmp(arguments[next], "--") != 0; next++) {
        size_t bytes;
        p[inputs++] = read_file(arguments[next], &bytes);
    }
    for (int k = 0; k < outputs; k++) p[inputs + k] = fenced(lengths[k]);
    if (next + 1 + outputs != count) fail("arguments");
    if (WORKSPACE(batch) != workspace_bytes) fail("the workspace's size is not what Python says");
    if (PREPARE(file, weights_bytes, weights, weights_bytes) != 0) fail("prepare");
    char *workspace = fenced(workspace_bytes);
    /* Twice: the second run finds the workspace as the first left it. */
    for (int round = 0; round < 2; round++) {
        int code = RUN(weights, POINTERS, batch, workspace, workspace_bytes);
        if (code != 0) return 100 + code;
    }
    for (int k = 0; k < outputs; k++) {
        FILE *result = fopen(arguments[next + 1 + k], "wb");
        if (result == NULL || fwrite(p[inputs + k], 1, lengths[k], result) != lengths[k]) fail("cannot write");
        fclose(result);
    }
    return 0;
}
