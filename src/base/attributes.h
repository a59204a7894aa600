/* attributes: the compiler's help, spelled once. */
#ifndef COMPOSURE_ATTRIBUTES_H
#define COMPOSURE_ATTRIBUTES_H

#include <stddef.h>

/* The caller has to look at what comes back. */
#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

/* The struct that holds `member` at `ptr`. */
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#endif
