// Output to the task's console, line by line. There are no files and there is no input.
#ifndef PHYSMEM_STDIO_H
#define PHYSMEM_STDIO_H

#include <stdarg.h>
#include <stddef.h>

#define EOF (-1)

/// Conversions d i u o x X c s p f F e E g G %, lengths hh h l ll z j t, flags - + space 0 #, width and precision.
/// printf writes the text at each line's end, when its buffer is full and at exit. Returns the characters written.
int printf(const char *format, ...) __attribute__((format(__printf__, 1, 2)));
int vprintf(const char *format, va_list arguments) __attribute__((format(__printf__, 1, 0)));
/// At most `size` bytes with the terminating null; returns the length of the whole text, as C does.
int snprintf(char *text, size_t size, const char *format, ...) __attribute__((format(__printf__, 3, 4)));
int vsnprintf(char *text, size_t size, const char *format, va_list arguments) __attribute__((format(__printf__, 3, 0)));
int puts(const char *text);
int putchar(int character);

#endif
