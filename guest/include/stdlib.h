// Memory, numbers and the program's end.
#ifndef PHYSMEM_STDLIB_H
#define PHYSMEM_STDLIB_H

#include <stddef.h>
#include <stdint.h>

#define EXIT_SUCCESS 0
#define EXIT_FAILURE 1

/// 16-byte aligned memory from the task's heap, which has its own container, created at the first use; null if none is
/// left. Not for use in a fault handler that may interrupt one of these functions.
void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *realloc(void *block, size_t size);
void free(void *block);
void *aligned_alloc(size_t alignment, size_t size);
/// 0, or the C library's numbers for a bad alignment (22) and for no memory (12).
int posix_memalign(void **block, size_t alignment, size_t size);

long strtol(const char *text, char **end, int base);
unsigned long strtoul(const char *text, char **end, int base);
unsigned long long strtoull(const char *text, char **end, int base);
int atoi(const char *text);
/// Rounded once, to nearest; decimal, hexadecimal, inf and nan. Out of range: infinity, or 0.
double strtod(const char *text, char **end);
float strtof(const char *text, char **end);
double atof(const char *text);

void qsort(void *base, size_t count, size_t size, int (*compare)(const void *, const void *));
/// Bytes that differ between runs; not for cryptography.
void arc4random_buf(void *buffer, size_t size);

/// Flushes printf's buffer and dies of an invalid instruction (exit status 134).
__attribute__((noreturn)) void abort(void);
/// The same as pm_exit.
__attribute__((noreturn)) void exit(int status);

#endif
