/* trace: request ids, and W3C Trace Context (traceparent, version 00). */
#ifndef COMPOSURE_TRACE_H
#define COMPOSURE_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/view.h"

enum { REQUEST_ID_CHARS = 36, TRACE_ID_CHARS = 32 };

/* A new random request id (a UUID, version 4) in out, not terminated. Not for secrets. */
void request_id_make(char out[REQUEST_ID_CHARS]);

/* The trace id out of a traceparent header; absent when the header is not one. A view into it. */
struct view trace_id(struct view traceparent);

#endif
