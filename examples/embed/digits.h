/* Reads digits.bin: a count, images of 28 x 28 floats, labels of a byte. Used by the C and C++ programs here. */
#ifndef DIGITS_H
#define DIGITS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define PIXELS 784

/* A whole file; the program ends if there is none. `bytes` may be null. */
static inline unsigned char *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(2);
    }
    size_t length = (size_t)ftell(file);
    unsigned char *content = (unsigned char *)malloc(length ? length : 1);
    rewind(file);
    if (content == NULL || fread(content, 1, length, file) != length) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(2);
    }
    fclose(file);
    if (bytes != NULL) *bytes = length;
    return content;
}

struct digits {
    int32_t count;
    const float *images;
    const uint8_t *labels;
};

static inline struct digits read_digits(const char *path) {
    unsigned char *content = read_file(path, NULL);
    struct digits digits;
    digits.count = *(const int32_t *)(const void *)content;
    digits.images = (const float *)(const void *)(content + 4);
    digits.labels = content + 4 + (size_t)digits.count * PIXELS * sizeof(float);
    return digits;
}

/* Where the largest of ten numbers is. */
static inline int largest(const float *scores) {
    int best = 0;
    for (int k = 1; k < 10; k++)
        if (scores[k] > scores[best]) best = k;
    return best;
}

#endif
