/* log: our own messages to stderr (the web server's error log), the one way to write them.
 *
 * Each message is one line and one write(2): "composure[pid]: level: text". Never a secret, never a client's data
 * unasked: control characters become '?', so that no text can forge a line. Longer than 1 KB is cut. errno survives.
 */
#ifndef COMPOSURE_LOG_H
#define COMPOSURE_LOG_H

#include "base/attributes.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Messages above this level are dropped. LOG_LEVEL_INFO until then. */
void log_init(enum log_level);

void log_error(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_info(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_debug(const char *fmt, ...) PRINTF_LIKE(1, 2);

#endif
