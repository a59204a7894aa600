/* scan: one query parameter being read from left to right, and the place of what is wrong in it. */
#ifndef COMPOSURE_SCAN_H
#define COMPOSURE_SCAN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/status.h"
#include "base/view.h"

/* What bounds a query; settings have them. Beyond: ERR_QUERY_TOO_COMPLEX. */
struct bounds {
	unsigned filters, list_items, levels, embeds;
	size_t pattern_bytes, cursor_bytes;
};

struct scan {
	struct arena *arena;
	struct view param; /* the parameter's name, for errors */
	struct view text;  /* what is read: its value, or its name */
	size_t at;
	enum status status; /* OK, or the first thing that was wrong */
	struct view detail; /* in words for the client, with the place */
};

struct scan scan_of(struct arena *, struct view param, struct view text);

/* Always false: for `return scan_fail(...)`. The first failure counts. The place is `at`, a byte of the text. */
bool scan_fail(struct scan *, enum status, size_t at, const char *fmt, ...) PRINTF_LIKE(4, 5);

static inline bool scan_end(const struct scan *s)
{
	return s->at == s->text.n;
}

static inline struct view scan_rest(const struct scan *s)
{
	return view_skip(s->text, s->at);
}

/* The next byte; '\0' at the end, which no parameter has in it. */
static inline char scan_peek(const struct scan *s)
{
	return scan_end(s) ? '\0' : s->text.p[s->at];
}

/* Takes c, or that text, if it comes next. */
bool scan_take(struct scan *, char c);
bool scan_take_text(struct scan *, struct view text);

/* Takes blanks. */
void scan_blanks(struct scan *);

/* A name: anything up to one of . , : ! ( ) " or "->", without the blanks around it; or "..." with every character in
 * it, where a backslash takes the next one as it is. False, and failed, when there is none. */
bool scan_name(struct scan *, enum status otherwise, struct view *name) MUST_CHECK;

/* "..." as above, of which the opening quote comes next. */
bool scan_quoted(struct scan *, enum status otherwise, struct view *value) MUST_CHECK;

#endif
