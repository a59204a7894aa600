#include "config.h"

#include "query/scan.h"

#include <stdarg.h>
#include <stdio.h>

struct scan scan_of(struct arena *a, struct view param, struct view text)
{
	return (struct scan){ .arena = a, .param = param, .text = text.p ? text : VIEW("") };
}

bool scan_fail(struct scan *s, enum status status, size_t at, const char *fmt, ...)
{
	if (s->status != OK)
		return false;
	char what[512];
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(what, sizeof what, fmt, args);
	va_end(args);
	if (n > 0 && n < (int)sizeof what && what[n - 1] == '.') /* the place belongs to the sentence */
		what[n - 1] = '\0';
	bool in_name = s->text.p == s->param.p;
	s->status = status;
	s->detail = arena_printf(s->arena, "%s (byte %zu of %s\"%.*s\").", what, at, in_name ? "the parameter's name " : "",
	                         VIEW_ARG(s->param));
	return false;
}

bool scan_take(struct scan *s, char c)
{
	if (scan_end(s) || s->text.p[s->at] != c)
		return false;
	s->at++;
	return true;
}

bool scan_take_text(struct scan *s, struct view text)
{
	if (!view_starts(scan_rest(s), text))
		return false;
	s->at += text.n;
	return true;
}

void scan_blanks(struct scan *s)
{
	while (scan_peek(s) == ' ' || scan_peek(s) == '\t')
		s->at++;
}

bool scan_quoted(struct scan *s, enum status otherwise, struct view *value)
{
	size_t begin = s->at++;
	char *out = arena_alloc(s->arena, s->text.n - begin + 1);
	if (!out)
		return scan_fail(s, ERR_QUERY_TOO_COMPLEX, begin, "The query is too large.");
	size_t n = 0;
	while (!scan_end(s)) {
		char c = s->text.p[s->at++];
		if (c == '"') {
			*value = view_make(out, n);
			return true;
		}
		if (c == '\\' && !scan_end(s))
			c = s->text.p[s->at++];
		out[n++] = c;
	}
	return scan_fail(s, otherwise, begin, "A quote has no end.");
}

static bool ends_name(const struct scan *s)
{
	return strchr(".,:!()\"", scan_peek(s)) || view_starts(scan_rest(s), VIEW("->"));
}

bool scan_name(struct scan *s, enum status otherwise, struct view *name)
{
	scan_blanks(s);
	if (scan_peek(s) == '"') {
		if (!scan_quoted(s, otherwise, name))
			return false;
		scan_blanks(s);
	} else {
		size_t begin = s->at;
		while (!ends_name(s))
			s->at++;
		*name = view_trim(view_make(s->text.p + begin, s->at - begin));
	}
	return name->n || scan_fail(s, otherwise, s->at, "A name is missing.");
}
