// assert: on failure the task prints the condition and aborts. No include guard: each inclusion heeds NDEBUG.
#undef assert
#ifdef NDEBUG
#define assert(condition) ((void)0)
#else
#define assert(condition) ((condition) ? (void)0 : pm_assert_failed(#condition, __FILE__, __LINE__))
#endif

#ifndef PHYSMEM_ASSERT_H
#define PHYSMEM_ASSERT_H
__attribute__((noreturn)) void pm_assert_failed(const char *condition, const char *file, int line);
#endif
