/* view: a pointer and a length; the one string type.
 *
 * A view never owns: it is valid as long as the memory it points into (an arena, a buf, a request), and is not
 * NUL-terminated. A view with p == NULL is "absent", which is not the same as empty.
 */
#ifndef COMPOSURE_VIEW_H
#define COMPOSURE_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct view {
	const char *p;
	size_t n;
};

/* A view of a string literal. */
#define VIEW(lit) ((struct view){ "" lit, sizeof(lit) - 1 })
/* The same, to initialise a static one with. */
#define VIEW_INIT(lit) { "" lit, sizeof(lit) - 1 }
#define VIEW_NONE ((struct view){ NULL, 0 })

/* For printf: "%.*s", VIEW_ARG(v). */
#define VIEW_ARG(v) (int)(v).n, (v).p ? (v).p : ""

static inline struct view view_of(const char *s)
{
	return s ? (struct view){ s, strlen(s) } : VIEW_NONE;
}

static inline struct view view_make(const char *p, size_t n)
{
	return (struct view){ p, n };
}

static inline bool view_eq(struct view a, struct view b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool view_starts(struct view v, struct view prefix)
{
	return v.n >= prefix.n && (prefix.n == 0 || memcmp(v.p, prefix.p, prefix.n) == 0);
}

/* ASCII only, as HTTP's tokens are. */
bool view_ieq(struct view a, struct view b);

/* The rest of v behind its first n bytes; n must not exceed v.n. */
static inline struct view view_skip(struct view v, size_t n)
{
	return (struct view){ v.p + n, v.n - n };
}

/* Takes what stands before the first c off *rest; *rest then begins behind c. Without a c in it, all of *rest is
 * taken and *rest becomes absent. Returns false when *rest is absent already: for (;view_split(&r, ',', &part);). */
bool view_split(struct view *rest, char c, struct view *part);

/* Without the blanks and tabs at both ends. */
struct view view_trim(struct view v);

/* Orders as memcmp does, a prefix first. */
int view_cmp(struct view a, struct view b);

#endif
