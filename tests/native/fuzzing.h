/* What programs that call a library wrongly have in common: draws, blocks that end at a page which may not be touched,
 * and files that are damaged in some way. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t state;

static uint64_t draw(uint64_t below) { /* xorshift64*, Vigna 2016 */
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return state * UINT64_C(0x2545F4914F6CDD1D) % below;
}

static unsigned char *fenced(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (bytes + page - 1) / page;
    unsigned char *start = mmap(NULL, (pages + 2) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED || mprotect(start + page, pages * page, PROT_READ | PROT_WRITE) != 0) exit(3);
    return start + page + pages * page - bytes;
}

static int64_t pick(const int64_t *from, size_t count) { return from[draw(count)]; }
#define PICK(...) pick((const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

static const char words[][13] = {"\"", "{", "}", "[", "]", ":", ",", "0", "9999999999", "null", "-1", "\\", "F32", "table",
                                 "shape", "dtype", " ", "1e9", "\xff", "__metadata__"};

/* One to four changes: bits, bytes, words of JSON, numbers in front, a stretch moved, another length. */
static size_t mutate(unsigned char *file, size_t bytes) {
    for (uint64_t n = 1 + draw(4); n-- > 0 && bytes > 0;) {
        size_t at = draw(2) ? draw(bytes) : draw(bytes < 400 ? bytes : 400);
        switch (draw(6)) {
        case 0: file[at] ^= (unsigned char)(1 << draw(8)); break;
        case 1: file[at] = (unsigned char)draw(256); break;
        case 2: {
            const char *word = words[draw(sizeof words / sizeof *words)];
            size_t length = strlen(word);
            if (at + length <= bytes) memcpy(file + at, word, length);
            break;
        }
        case 3: {
            uint64_t length = (uint64_t)PICK(0, 1, 7, 8, -1, INT64_MAX, INT64_MIN, (int64_t)bytes, (int64_t)bytes - 8,
                                             (int64_t)bytes - 7, 1000);
            if (bytes >= 8) memcpy(file, &length, 8);
            break;
        }
        case 4: {
            size_t length = 1 + draw(20), from = draw(bytes);
            if (at + length <= bytes && from + length <= bytes) memmove(file + at, file + from, length);
            break;
        }
        default: bytes = draw(2) ? draw(bytes + 1) : bytes - draw(bytes < 9 ? bytes + 1 : 9);
        }
    }
    return bytes;
}
