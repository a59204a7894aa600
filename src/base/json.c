/* A recursive descent as deep as limits.depth allows, behind one pass over the document that proves it UTF-8. The one
 * hard fact: a client chooses member names, so looking for duplicates must not become quadratic by its choice: more
 * than a handful go through a table hashed with a key that the client cannot know. */
#include "config.h"

#include "base/json.h"

#include <stdint.h>
#include <string.h>
#include <sys/random.h>

enum { FEW_MEMBERS = 16 };

/* --- bytes --- */

static const uint64_t ONES = 0x0101010101010101, HIGHS = 0x8080808080808080;

static uint64_t load64(const char *p)
{
	uint64_t x;
	memcpy(&x, p, sizeof x);
	return x;
}

/* Not zero when a byte of x is zero. */
static uint64_t has_zero(uint64_t x)
{
	return (x - ONES) & ~x & HIGHS;
}

static bool is_plain(char c)
{
	return (unsigned char)c >= 0x20 && c != '"' && c != '\\';
}

/* Where the run of bytes that stand for themselves in a JSON string ends; eight at a time. */
static const char *plain_end(const char *p, const char *end)
{
	for (; end - p >= 8; p += 8) {
		uint64_t x = load64(p);
		uint64_t control = (x - ONES * 0x20) & ~x & HIGHS;
		if (control | has_zero(x ^ ONES * '"') | has_zero(x ^ ONES * '\\'))
			break;
	}
	while (p < end && is_plain(*p))
		p++;
	return p;
}

static bool continues(const unsigned char *p, unsigned char low, unsigned char high)
{
	return *p >= low && *p <= high;
}

/* Length of the well-formed sequence at p (RFC 3629 section 4), 0 when there is none. */
static size_t utf8_length(const unsigned char *p, size_t left)
{
	unsigned char c = p[0];
	if (c < 0x80)
		return 1;
	if (c < 0xc2 || c > 0xf4)
		return 0;
	size_t n = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
	if (left < n)
		return 0;
	unsigned char low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
	unsigned char high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
	if (!continues(p + 1, low, high))
		return 0;
	for (size_t i = 2; i < n; i++)
		if (!continues(p + i, 0x80, 0xbf))
			return 0;
	return n;
}

/* How many bytes at the front are UTF-8: v.n when all are. */
static size_t utf8_prefix(struct view v)
{
	size_t i = 0;
	while (i < v.n) {
		if (v.n - i >= 8 && !(load64(v.p + i) & HIGHS)) {
			i += 8;
			continue;
		}
		size_t n = utf8_length((const unsigned char *)v.p + i, v.n - i);
		if (!n)
			break;
		i += n;
	}
	return i;
}

bool utf8_valid(struct view v)
{
	return utf8_prefix(v) == v.n;
}

/* --- writing --- */

static void escape(struct buf *b, char c)
{
	static const char hex[] = "0123456789abcdef";
	switch (c) {
	case '\b': buf_lit(b, "\\b"); return;
	case '\f': buf_lit(b, "\\f"); return;
	case '\n': buf_lit(b, "\\n"); return;
	case '\r': buf_lit(b, "\\r"); return;
	case '\t': buf_lit(b, "\\t"); return;
	case '"': buf_lit(b, "\\\""); return;
	case '\\': buf_lit(b, "\\\\"); return;
	default: buf_put(b, (char[]){ '\\', 'u', '0', '0', hex[c >> 4 & 15], hex[c & 15] }, 6);
	}
}

void json_string(struct buf *b, struct view v)
{
	const char *p = v.p ? v.p : "", *end = p + v.n;
	(void)buf_reserve(b, v.n + 2); /* one growth for the usual text, which needs no escape */
	buf_putc(b, '"');
	while (p < end) {
		const char *stop = plain_end(p, end);
		buf_put(b, p, (size_t)(stop - p));
		if (stop < end)
			escape(b, *stop++);
		p = stop;
	}
	buf_putc(b, '"');
}

/* --- reading --- */

struct parser {
	struct arena *arena;
	const char *start, *at, *end;
	unsigned depth;    /* still allowed */
	size_t values;     /* likewise */
	const char *wrong; /* in words; NULL: the arena is full */
	const char *wrong_at;
	uint64_t key[2]; /* of the member hash, drawn when first needed */
	bool has_key;
};

static bool fail(struct parser *p, const char *at, const char *wrong)
{
	p->wrong = wrong;
	p->wrong_at = at;
	return false;
}

static void skip_blank(struct parser *p)
{
	while (p->at < p->end && (*p->at == ' ' || *p->at == '\n' || *p->at == '\r' || *p->at == '\t'))
		p->at++;
}

/* Takes c if it is the next byte. */
static bool take(struct parser *p, char c)
{
	if (p->at == p->end || *p->at != c)
		return false;
	p->at++;
	return true;
}

/* The closing quote of the string that begins at p->at (behind its opening quote). */
static const char *string_end(const struct parser *p)
{
	const char *at = p->at;
	while ((at = plain_end(at, p->end)) < p->end && *at == '\\')
		at += p->end - at > 1 ? 2 : 1;
	return at;
}

static uint32_t hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return (uint32_t)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (uint32_t)(c - 'a' + 10);
	return c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10) : 16;
}

/* The four hex digits of an escape; false when they are not. */
static bool hex4(const char *at, const char *end, uint32_t *unit)
{
	if (end - at < 4)
		return false;
	uint32_t u = 0;
	for (int i = 0; i < 4; i++) {
		uint32_t d = hex_value(at[i]);
		if (d > 15)
			return false;
		u = u << 4 | d;
	}
	*unit = u;
	return true;
}

static char *utf8_put(char *out, uint32_t c)
{
	if (c < 0x80) {
		*out++ = (char)c;
	} else if (c < 0x800) {
		*out++ = (char)(0xc0 | c >> 6);
		*out++ = (char)(0x80 | (c & 0x3f));
	} else if (c < 0x10000) {
		*out++ = (char)(0xe0 | c >> 12);
		*out++ = (char)(0x80 | (c >> 6 & 0x3f));
		*out++ = (char)(0x80 | (c & 0x3f));
	} else {
		*out++ = (char)(0xf0 | c >> 18);
		*out++ = (char)(0x80 | (c >> 12 & 0x3f));
		*out++ = (char)(0x80 | (c >> 6 & 0x3f));
		*out++ = (char)(0x80 | (c & 0x3f));
	}
	return out;
}

/* A \u escape; p->at is at its four digits. */
static bool unicode_escape(struct parser *p, char **out)
{
	const char *escape_at = p->at - 2;
	uint32_t c, low;
	if (!hex4(p->at, p->end, &c))
		return fail(p, escape_at, "\\u takes four hexadecimal digits");
	p->at += 4;
	if (c == 0)
		return fail(p, escape_at, "\\u0000 is not taken");
	if (c >= 0xd800 && c < 0xe000) {
		bool paired = c < 0xdc00 && p->end - p->at >= 6 && p->at[0] == '\\' && p->at[1] == 'u' &&
			hex4(p->at + 2, p->end, &low) && low >= 0xdc00 && low < 0xe000;
		if (!paired)
			return fail(p, escape_at, "a surrogate stands alone");
		p->at += 6;
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
	}
	*out = utf8_put(*out, c);
	return true;
}

static bool one_escape(struct parser *p, char **out)
{
	char c = *p->at++;
	switch (c) {
	case '"':
	case '\\':
	case '/': break;
	case 'b': c = '\b'; break;
	case 'f': c = '\f'; break;
	case 'n': c = '\n'; break;
	case 'r': c = '\r'; break;
	case 't': c = '\t'; break;
	case 'u': return unicode_escape(p, out);
	default: return fail(p, p->at - 2, "the escape is not known");
	}
	*(*out)++ = c;
	return true;
}

/* The string behind an opening quote. Text without escapes is not copied: it is a view of the document. */
static bool parse_string(struct parser *p, struct view *string)
{
	const char *end = string_end(p);
	if (end == p->end)
		return fail(p, p->at - 1, "the string is not closed");
	if (*end != '"')
		return fail(p, end, "a control character in a string must be escaped");
	size_t n = (size_t)(end - p->at);
	if (!memchr(p->at, '\\', n)) {
		*string = view_make(p->at, n);
		p->at = end + 1;
		return true;
	}
	char *text = arena_alloc(p->arena, n); /* decoded text is never longer */
	if (!text)
		return false;
	char *out = text;
	while (p->at < end) {
		const char *stop = plain_end(p->at, end);
		memcpy(out, p->at, (size_t)(stop - p->at));
		out += stop - p->at;
		p->at = stop;
		if (take(p, '\\') && !one_escape(p, &out))
			return false;
	}
	*string = view_make(text, (size_t)(out - text));
	p->at = end + 1;
	return true;
}

static bool digits(struct parser *p)
{
	const char *first = p->at;
	while (p->at < p->end && *p->at >= '0' && *p->at <= '9')
		p->at++;
	return p->at > first;
}

static bool parse_number(struct parser *p, struct json *v)
{
	const char *first = p->at;
	(void)take(p, '-');
	bool good = take(p, '0') || digits(p);
	if (good && take(p, '.'))
		good = digits(p);
	if (good && (take(p, 'e') || take(p, 'E'))) {
		if (!take(p, '+'))
			(void)take(p, '-');
		good = digits(p);
	}
	if (!good)
		return fail(p, first, "the number is malformed");
	v->kind = JSON_NUMBER;
	v->string = view_make(first, (size_t)(p->at - first));
	return true;
}

static bool parse_word(struct parser *p, struct json *v, struct view word, enum json_kind kind)
{
	if (!view_starts(view_make(p->at, (size_t)(p->end - p->at)), word))
		return fail(p, p->at, "a value is expected");
	p->at += word.n;
	v->kind = kind;
	return true;
}

/* SipHash-1-3 (Aumasson, Bernstein): short names, a key. */
#define SIP_ROUND                                                                                                      \
	do {                                                                                                           \
		a += b, b = b << 13 | b >> 51, b ^= a, a = a << 32 | a >> 32;                                          \
		c += d, d = d << 16 | d >> 48, d ^= c;                                                                 \
		a += d, d = d << 21 | d >> 43, d ^= a;                                                                 \
		c += b, b = b << 17 | b >> 47, b ^= c, c = c << 32 | c >> 32;                                          \
	} while (0)

static uint64_t name_hash(const uint64_t key[2], struct view name)
{
	uint64_t a = key[0] ^ 0x736f6d6570736575, b = key[1] ^ 0x646f72616e646f6d;
	uint64_t c = key[0] ^ 0x6c7967656e657261, d = key[1] ^ 0x7465646279746573;
	uint64_t last = (uint64_t)name.n << 56;
	for (; name.n >= 8; name = view_skip(name, 8)) {
		uint64_t x = load64(name.p);
		d ^= x;
		SIP_ROUND;
		a ^= x;
	}
	for (size_t i = 0; i < name.n; i++)
		last |= (uint64_t)(unsigned char)name.p[i] << (8 * i);
	d ^= last;
	SIP_ROUND;
	a ^= last;
	c ^= 0xff;
	SIP_ROUND;
	SIP_ROUND;
	SIP_ROUND;
	return a ^ b ^ c ^ d;
}

static bool draw_key(struct parser *p)
{
	if (!p->has_key)
		p->has_key = getrandom(p->key, sizeof p->key, GRND_NONBLOCK) == sizeof p->key;
	return p->has_key;
}

/* The first member whose name an earlier one has, among few. */
static const struct json *duplicate_among_few(const struct json *object)
{
	for (const struct json *m = object->child; m; m = m->next)
		for (const struct json *before = object->child; before != m; before = before->next)
			if (view_eq(before->name, m->name))
				return m;
	return NULL;
}

static bool distinct_among_many(struct parser *p, const struct json *object)
{
	size_t size = 64;
	while (size < object->n_children * 2)
		size *= 2;
	const struct json **table = ARENA_ARRAY(p->arena, const struct json *, size);
	if (!table)
		return false;
	if (!draw_key(p))
		return fail(p, object->text.p, "the system has no random bytes yet");
	for (const struct json *m = object->child; m; m = m->next) {
		size_t at = (size_t)name_hash(p->key, m->name) & (size - 1);
		for (; table[at]; at = (at + 1) & (size - 1))
			if (view_eq(table[at]->name, m->name))
				return fail(p, m->text.p, "a member of this name is there already");
		table[at] = m;
	}
	return true;
}

static bool distinct_names(struct parser *p, const struct json *object)
{
	if (object->n_children > FEW_MEMBERS)
		return distinct_among_many(p, object);
	const struct json *again = duplicate_among_few(object);
	return !again || fail(p, again->text.p, "a member of this name is there already");
}

static struct json *parse_value(struct parser *);

static bool parse_name(struct parser *p, struct view *name)
{
	skip_blank(p);
	if (!take(p, '"'))
		return fail(p, p->at, "a member name is expected");
	if (!parse_string(p, name))
		return false;
	skip_blank(p);
	return take(p, ':') || fail(p, p->at, "a colon is expected");
}

/* What stands between the brackets, and the closing one; p->at is behind the opening one. */
static bool parse_children(struct parser *p, struct json *parent, char closing)
{
	skip_blank(p);
	if (take(p, closing))
		return true;
	for (struct json **link = &parent->child;; link = &(*link)->next) {
		struct view name = VIEW_NONE;
		if (parent->kind == JSON_OBJECT && !parse_name(p, &name))
			return false;
		struct json *child = parse_value(p);
		if (!child)
			return false;
		child->name = name;
		*link = child;
		parent->n_children++;
		skip_blank(p);
		if (take(p, closing))
			return true;
		if (!take(p, ','))
			return fail(p, p->at, closing == ']' ? "a comma or ] is expected" : "a comma or } is expected");
	}
}

static bool parse_container(struct parser *p, struct json *v)
{
	bool object = *p->at == '{';
	if (p->depth == 0)
		return fail(p, p->at, "arrays and objects are nested too deep");
	p->depth--;
	v->kind = object ? JSON_OBJECT : JSON_ARRAY;
	v->text.p = p->at++;
	if (!parse_children(p, v, object ? '}' : ']'))
		return false;
	p->depth++;
	return !object || distinct_names(p, v);
}

static bool parse_kind(struct parser *p, struct json *v)
{
	if (p->at == p->end)
		return fail(p, p->at, "the document ends where a value is expected");
	switch (*p->at) {
	case '{':
	case '[': return parse_container(p, v);
	case '"':
		p->at++;
		v->kind = JSON_STRING;
		return parse_string(p, &v->string);
	case 'n': return parse_word(p, v, VIEW("null"), JSON_NULL);
	case 't': return parse_word(p, v, VIEW("true"), JSON_TRUE);
	case 'f': return parse_word(p, v, VIEW("false"), JSON_FALSE);
	default:
		if (*p->at == '-' || (*p->at >= '0' && *p->at <= '9'))
			return parse_number(p, v);
		return fail(p, p->at, "a value is expected");
	}
}

static struct json *parse_value(struct parser *p)
{
	skip_blank(p);
	if (p->values == 0) {
		fail(p, p->at, "there are too many values");
		return NULL;
	}
	p->values--;
	struct json *v = ARENA_NEW(p->arena, struct json);
	const char *first = p->at;
	if (!v || !parse_kind(p, v))
		return NULL;
	v->text = view_make(first, (size_t)(p->at - first));
	return v;
}

static struct json *parse_document(struct parser *p)
{
	size_t good = utf8_prefix(view_make(p->start, (size_t)(p->end - p->start)));
	if (p->start + good < p->end) {
		fail(p, p->start + good, "the text is not UTF-8");
		return NULL;
	}
	struct json *v = parse_value(p);
	if (!v)
		return NULL;
	skip_blank(p);
	if (p->at < p->end) {
		fail(p, p->at, "there is text behind the end of the document");
		return NULL;
	}
	return v;
}

struct json *json_parse(struct arena *a, struct view doc, const struct json_limits *limits, struct view *detail)
{
	const char *start = doc.p ? doc.p : "";
	struct parser p = {
		.arena = a,
		.start = start,
		.at = start,
		.end = start + doc.n,
		.depth = limits->depth,
		.values = limits->values,
	};
	struct json *v = parse_document(&p);
	if (v)
		return v;
	*detail = VIEW_NONE;
	if (p.wrong)
		*detail = arena_printf(a, "%s (byte %zu)", p.wrong, (size_t)(p.wrong_at - p.start));
	if (!detail->p)
		*detail = VIEW("the document is too large");
	return NULL;
}

struct json *json_member(const struct json *object, struct view name)
{
	for (struct json *m = object->child; m; m = m->next)
		if (view_eq(m->name, name))
			return m;
	return NULL;
}
