/* Runs an exported library on inputs from files. Compiled with -DNAME=..., -DHEADER=..., -DUPPER=..., -DPOINTERS=...
 *
 *   program weights workspace_bytes batch output_bytes... -- input... -- output...
 *
 * Every block ends exactly at a page that may not be touched, and what lies in front of it must stay as it was.
 * Outputs of a run on one thread are written; runs with other pools must give the same bits.
 */
#include HEADER
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define RUN JOIN(NAME, _run)
#define RUN_PARALLEL JOIN(NAME, _run_parallel)
#define PREPARE JOIN(NAME, _prepare)
#define WORKSPACE JOIN(NAME, _workspace_bytes)
#define STRERROR JOIN(NAME, _strerror)
#define BYTES(batch, workers) ((size_t)JOIN(UPPER, _WORKSPACE_BYTES)(batch, workers))
#define WORKERS 3

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

struct block { unsigned char *page, *start; size_t bytes; };
static struct block blocks[32];
static int block_count;

/* `bytes` bytes that end at a forbidden page. */
static void *fenced(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t pages = (bytes + page - 1) / page;
    unsigned char *start = mmap(NULL, (pages + 2) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED || mprotect(start + page, pages * page, PROT_READ | PROT_WRITE) != 0) fail("no memory");
    memset(start + page, 0xA5, pages * page);
    struct block block = {start + page, start + page + pages * page - bytes, bytes};
    if (block_count == 32) fail("too many blocks");
    blocks[block_count++] = block;
    return block.start;
}

static void check_fences(void) {
    for (int k = 0; k < block_count; k++)
        for (unsigned char *byte = blocks[k].page; byte < blocks[k].start; byte++)
            if (*byte != 0xA5) fail("something in front of a block was written");
}

static void *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) fail(path);
    *bytes = (size_t)ftell(file);
    rewind(file);
    char *block = fenced(*bytes);
    if (fread(block, 1, *bytes, file) != *bytes) fail(path);
    fclose(file);
    return block;
}

/* Pools: in order, in reverse order, on threads. */
typedef void body_function(void *context, int64_t piece, int64_t worker);

static void in_order(void *pool, int64_t pieces, body_function *body, void *context) {
    (void)pool;
    for (int64_t piece = 0; piece < pieces; piece++) body(context, piece, 0);
}

static void reversed(void *pool, int64_t pieces, body_function *body, void *context) {
    (void)pool;
    for (int64_t piece = pieces; piece-- > 0;) body(context, piece, piece % WORKERS);
}

struct share { int64_t next, pieces; body_function *body; void *context; };
struct thread { struct share *share; int64_t worker; };

static void *work(void *argument) {
    struct thread *thread = argument;
    for (;;) {
        int64_t piece = __atomic_fetch_add(&thread->share->next, 1, __ATOMIC_RELAXED);
        if (piece >= thread->share->pieces) return NULL;
        thread->share->body(thread->share->context, piece, thread->worker);
    }
}

static void threaded(void *pool, int64_t pieces, body_function *body, void *context) {
    (void)pool;
    struct share share = {0, pieces, body, context};
    struct thread threads[WORKERS];
    pthread_t handles[WORKERS];
    for (int k = 0; k < WORKERS; k++) {
        threads[k] = (struct thread){&share, k};
        if (pthread_create(&handles[k], NULL, work, &threads[k]) != 0) fail("no thread");
    }
    for (int k = 0; k < WORKERS; k++) pthread_join(handles[k], NULL);
}

int main(int count, char **arguments) {
    size_t file_bytes, workspace_bytes = strtoull(arguments[2], NULL, 10);
    int64_t batch = strtoll(arguments[3], NULL, 10);
    char *file = read_file(arguments[1], &file_bytes);
    size_t prepared_bytes = JOIN(UPPER, _PREPARED_BYTES);
    void *prepared = fenced(prepared_bytes);
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
    if (WORKSPACE(batch, 1) != workspace_bytes) fail("the workspace's size is not what Python says");
    if (BYTES(batch, 1) != workspace_bytes) fail("the workspace's size is not what the macro says");
    if (BYTES(batch, WORKERS) != WORKSPACE(batch, WORKERS)) fail("the macro is wrong for several workers");
    int code = PREPARE(file, file_bytes, prepared, prepared_bytes);
    if (code != 0) fail(STRERROR(code));
    void *workspace = fenced(workspace_bytes);
    /* Twice: the second run finds the workspace as the first left it. */
    for (int round = 0; round < 2; round++) {
        code = RUN(prepared, POINTERS, batch, workspace, workspace_bytes);
        if (code != 0) return 100 + code;
    }
    char *golden[8];
    for (int k = 0; k < outputs; k++) {
        golden[k] = malloc(lengths[k] + 1);
        memcpy(golden[k], p[inputs + k], lengths[k]);
        FILE *result = fopen(arguments[next + 1 + k], "wb");
        if (result == NULL || fwrite(golden[k], 1, lengths[k], result) != lengths[k]) fail("cannot write");
        fclose(result);
    }
    size_t shared_bytes = BYTES(batch, WORKERS);
    void *shared = fenced(shared_bytes);
    JOIN(NAME, _parallel_for) pools[] = {in_order, reversed, threaded};
    for (int pool = 0; pool < 3; pool++) {
        for (int k = 0; k < outputs; k++) memset(p[inputs + k], 0x5A, lengths[k]);
        code = RUN_PARALLEL(prepared, POINTERS, batch, WORKERS, shared, shared_bytes, pools[pool], NULL);
        if (code != 0) return 120 + code;
        for (int k = 0; k < outputs; k++)
            if (memcmp(golden[k], p[inputs + k], lengths[k]) != 0) fail("a pool gives other bits");
    }
    for (int k = 0; k < outputs; k++) free(golden[k]);
    check_fences();
    return 0;
}
