#include "config.h"

#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

enum { LINE_BYTES = 1024 };

static const char *const level_name[] = { "error", "warning", "info", "debug" };
static enum log_level threshold = LOG_LEVEL_INFO;

void log_init(enum log_level level)
{
	threshold = level;
}

/* How many of the `room` bytes snprintf filled, its NUL not counted. */
static size_t written(int n, size_t room)
{
	if (n < 0)
		return 0;
	return (size_t)n < room ? (size_t)n : room - 1;
}

static void PRINTF_LIKE(2, 0) line(enum log_level level, const char *fmt, va_list ap)
{
	if (level > threshold)
		return;
	int saved = errno;
	char text[LINE_BYTES];
	size_t room = sizeof text - 1; /* the newline's place */
	size_t n = written(snprintf(text, room, "composure[%ld]: %s: ", (long)getpid(), level_name[level]), room);
	size_t head = n;
	/* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 knows no va_list that is a parameter */
	n += written(vsnprintf(text + n, room - n, fmt, ap), room - n);
	for (size_t i = head; i < n; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			text[i] = '?';
	text[n++] = '\n';
	ssize_t ignored = write(STDERR_FILENO, text, n); /* there is nobody left to tell */
	(void)ignored;
	errno = saved;
}

#define LOG_FUNCTION(name, level)                                                                                      \
	void name(const char *fmt, ...)                                                                                \
	{                                                                                                              \
		va_list ap;                                                                                            \
		va_start(ap, fmt);                                                                                     \
		line(level, fmt, ap);                                                                                  \
		va_end(ap);                                                                                            \
	}

LOG_FUNCTION(log_error, LOG_LEVEL_ERROR)
LOG_FUNCTION(log_warn, LOG_LEVEL_WARN)
LOG_FUNCTION(log_info, LOG_LEVEL_INFO)
LOG_FUNCTION(log_debug, LOG_LEVEL_DEBUG)
