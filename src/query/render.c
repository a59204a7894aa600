#include "config.h"

#include "query/render.h"

#include "base/json.h"
#include "db/rows.h"

/* OIDs of PostgreSQL's own types never change (pg_type.dat). */
enum {
	OID_BOOL = 16, OID_NAME = 19, OID_INT8 = 20, OID_INT2 = 21, OID_INT4 = 23, OID_TEXT = 25, OID_JSON = 114,
	OID_FLOAT4 = 700, OID_FLOAT8 = 701, OID_BPCHAR = 1042, OID_VARCHAR = 1043, OID_DATE = 1082,
	OID_TIMESTAMP = 1114, OID_TIMESTAMPTZ = 1184, OID_NUMERIC = 1700, OID_UUID = 2950, OID_JSONB = 3802,
};

enum render_kind render_kind(const struct column *c)
{
	if (c->type_kind == 'e')
		return RENDER_TEXT;
	switch (c->base_oid) {
	case OID_BOOL: return RENDER_BOOL;
	case OID_INT2:
	case OID_INT4:
	case OID_INT8: return RENDER_INT;
	case OID_NUMERIC: return RENDER_NUMERIC;
	case OID_TEXT:
	case OID_VARCHAR:
	case OID_BPCHAR:
	case OID_NAME: return RENDER_TEXT;
	case OID_UUID: return RENDER_UUID;
	case OID_DATE: return RENDER_DATE;
	case OID_TIMESTAMP: return RENDER_TIMESTAMP;
	case OID_TIMESTAMPTZ: return RENDER_TIMESTAMPTZ;
	case OID_JSONB: return RENDER_JSONB;
	default: return RENDER_RAW;
	}
}

bool render_converts(const struct column *c)
{
	return render_kind(c) == RENDER_RAW && c->base_oid != OID_JSON;
}

void render_select(struct statement *s, const struct column *c, struct view qualifier)
{
	bool convert = render_converts(c);
	if (convert)
		statement_lit(s, "pg_catalog.to_json(");
	statement_text(s, qualifier);
	statement_text(s, c->quoted);
	if (convert)
		statement_lit(s, ")");
}

bool render_needs_text(const struct column *c)
{
	enum render_kind kind = render_kind(c);
	if (kind != RENDER_RAW)
		return kind == RENDER_JSONB;
	/* The text of an address gets a mask that its JSON has not ("10.0.0.1/32"). */
	return c->base_oid != OID_FLOAT4 && c->base_oid != OID_FLOAT8 && c->category != 'I';
}

/* --- numbers --- */

static unsigned be16(const char *p)
{
	return (unsigned)(unsigned char)p[0] << 8 | (unsigned char)p[1];
}

/* numeric_send(): number of base-10000 digits, weight of the first, sign, display scale, digits. */
struct numeric {
	int n_digits, weight, scale;
	unsigned sign;
	const char *digits;
};

enum { NUMERIC_NEGATIVE = 0x4000, NUMERIC_NAN = 0xC000, NUMERIC_PINF = 0xD000, NUMERIC_NINF = 0xF000 };

static bool numeric_read(struct view v, struct numeric *n)
{
	if (v.n < 8 || v.n != 8 + 2 * (size_t)be16(v.p))
		return false;
	*n = (struct numeric){ (int)be16(v.p), (int16_t)be16(v.p + 2), (int)be16(v.p + 6), be16(v.p + 4), v.p + 8 };
	return true;
}

/* The digit of 10000^power; 0 where none is stored. */
static unsigned numeric_digit(const struct numeric *n, int power)
{
	int at = n->weight - power;
	return at >= 0 && at < n->n_digits ? be16(n->digits + 2 * at) : 0;
}

static void four_digits(char *at, unsigned d)
{
	at[0] = (char)('0' + d / 1000);
	at[1] = (char)('0' + d / 100 % 10);
	at[2] = (char)('0' + d / 10 % 10);
	at[3] = (char)('0' + d % 10);
}

static void put_numeric(struct buf *b, const struct numeric *n)
{
	if (n->sign == NUMERIC_NEGATIVE)
		buf_putc(b, '-');
	if (n->weight < 0)
		buf_putc(b, '0');
	else
		buf_u64(b, numeric_digit(n, n->weight));
	for (int power = n->weight < 0 ? -1 : n->weight - 1; power >= 0; power--) {
		char *at = buf_reserve(b, 4);
		if (!at)
			return;
		four_digits(at, numeric_digit(n, power));
		buf_advance(b, 4);
	}
	if (n->scale <= 0)
		return;
	buf_putc(b, '.');
	int left = n->scale;
	for (int power = -1; left > 0; power--, left -= 4) {
		char digits[4];
		four_digits(digits, numeric_digit(n, power));
		buf_put(b, digits, left < 4 ? (size_t)left : 4);
	}
}

/* --- days and times --- */

enum { USECS_PER_SECOND = 1000000 };
static const int64_t USECS_PER_DAY = (int64_t)86400 * USECS_PER_SECOND;

struct civil {
	int64_t year;
	unsigned month, day;
};

/* Days since 2000-01-01 to the proleptic Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date
 * algorithms", civil_from_days). */
static struct civil civil_of(int64_t days)
{
	int64_t z = days + 10957 + 719468;
	int64_t era = (z >= 0 ? z : z - 146096) / 146097;
	int64_t doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;
	struct civil c = { .day = (unsigned)(doy - (153 * mp + 2) / 5 + 1), .month = (unsigned)(mp < 10 ? mp + 3 : mp - 9) };
	c.year = yoe + era * 400 + (c.month <= 2);
	return c;
}

static char *two_digits(char *at, unsigned d)
{
	at[0] = (char)('0' + d / 10);
	at[1] = (char)('0' + d % 10);
	return at + 2;
}

/* Years have at least four digits; those before 1 are counted backwards and end in " BC". Returns whether it is one. */
static bool put_date(struct buf *b, int64_t days)
{
	struct civil c = civil_of(days);
	bool bc = c.year <= 0;
	uint64_t year = (uint64_t)(bc ? 1 - c.year : c.year);
	char digits[6] = { '-', 0, 0, '-', 0, 0 };
	two_digits(digits + 1, c.month);
	two_digits(digits + 4, c.day);
	if (year < 10000) {
		char *at = buf_reserve(b, 4);
		if (at) {
			four_digits(at, (unsigned)year);
			buf_advance(b, 4);
		}
	} else {
		buf_u64(b, year);
	}
	buf_put(b, digits, sizeof digits);
	return bc;
}

static void put_time(struct buf *b, int64_t usecs)
{
	char text[16];
	unsigned seconds = (unsigned)(usecs / USECS_PER_SECOND), fraction = (unsigned)(usecs % USECS_PER_SECOND);
	char *at = two_digits(text, seconds / 3600);
	*at++ = ':';
	at = two_digits(at, seconds / 60 % 60);
	*at++ = ':';
	at = two_digits(at, seconds % 60);
	if (fraction) {
		*at++ = '.';
		for (unsigned unit = 100000; fraction; unit /= 10) {
			*at++ = (char)('0' + fraction / unit);
			fraction %= unit;
		}
	}
	buf_put(b, text, (size_t)(at - text));
}

static void put_day(struct buf *b, int64_t days)
{
	if (days == INT32_MAX)
		buf_lit(b, "infinity");
	else if (days == INT32_MIN)
		buf_lit(b, "-infinity");
	else if (put_date(b, days))
		buf_lit(b, " BC");
}

static void put_moment(struct buf *b, int64_t usecs, bool zone)
{
	if (usecs == INT64_MAX) {
		buf_lit(b, "infinity");
		return;
	}
	if (usecs == INT64_MIN) {
		buf_lit(b, "-infinity");
		return;
	}
	int64_t days = usecs / USECS_PER_DAY - (usecs % USECS_PER_DAY < 0);
	bool bc = put_date(b, days);
	buf_putc(b, 'T');
	put_time(b, usecs - days * USECS_PER_DAY);
	if (zone)
		buf_lit(b, "+00:00");
	if (bc)
		buf_lit(b, " BC");
}

static void put_uuid(struct buf *b, struct view v)
{
	static const char hex[] = "0123456789abcdef";
	char text[36], *at = text;
	for (size_t i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*at++ = '-';
		*at++ = hex[(unsigned char)v.p[i] >> 4];
		*at++ = hex[(unsigned char)v.p[i] & 15];
	}
	buf_put(b, text, sizeof text);
}

/* --- values --- */

static bool length_fits(enum render_kind kind, struct view v)
{
	switch (kind) {
	case RENDER_BOOL: return v.n == 1;
	case RENDER_INT: return v.n == 2 || v.n == 4 || v.n == 8;
	case RENDER_UUID: return v.n == 16;
	case RENDER_DATE: return v.n == 4;
	case RENDER_TIMESTAMP:
	case RENDER_TIMESTAMPTZ: return v.n == 8;
	case RENDER_JSONB: return v.n > 1;
	case RENDER_NUMERIC:
	case RENDER_TEXT:
	case RENDER_RAW: break;
	}
	return true;
}

/* What needs no quotes in JSON. False: the kind is a string's. */
static bool put_bare(struct buf *b, enum render_kind kind, struct view v)
{
	struct numeric n;
	switch (kind) {
	case RENDER_RAW:
		buf_view_put(b, v);
		return true;
	case RENDER_JSONB: /* a version byte, then the text */
		buf_view_put(b, view_skip(v, 1));
		return true;
	case RENDER_BOOL:
		buf_view_put(b, v.p[0] ? VIEW("true") : VIEW("false"));
		return true;
	case RENDER_INT:
		buf_i64(b, rows_int(v));
		return true;
	case RENDER_NUMERIC:
		if (!numeric_read(v, &n)) {
			buf_lit(b, "null");
			return true;
		}
		if (n.sign == NUMERIC_NAN || n.sign == NUMERIC_PINF || n.sign == NUMERIC_NINF)
			return false;
		put_numeric(b, &n);
		return true;
	case RENDER_TEXT:
	case RENDER_UUID:
	case RENDER_DATE:
	case RENDER_TIMESTAMP:
	case RENDER_TIMESTAMPTZ:
		break;
	}
	return false;
}

/* The text of a value that is a string in JSON, of characters that need no escape; RENDER_TEXT is not among them. */
static void put_plain(struct buf *b, enum render_kind kind, struct view v)
{
	struct numeric n;
	switch (kind) {
	case RENDER_UUID:
		put_uuid(b, v);
		break;
	case RENDER_DATE:
		put_day(b, rows_int(v));
		break;
	case RENDER_TIMESTAMP:
	case RENDER_TIMESTAMPTZ:
		put_moment(b, rows_int(v), kind == RENDER_TIMESTAMPTZ);
		break;
	case RENDER_NUMERIC:
		if (numeric_read(v, &n))
			buf_view_put(b, n.sign == NUMERIC_NAN  ? VIEW("NaN")
			                : n.sign == NUMERIC_PINF ? VIEW("Infinity")
			                                         : VIEW("-Infinity"));
		break;
	case RENDER_RAW:
	case RENDER_BOOL:
	case RENDER_INT:
	case RENDER_TEXT:
	case RENDER_JSONB:
		break;
	}
}

void render_value(struct buf *b, enum render_kind kind, struct view v)
{
	if (!v.p || !length_fits(kind, v)) {
		buf_lit(b, "null");
	} else if (kind == RENDER_TEXT) {
		json_string(b, v);
	} else if (!put_bare(b, kind, v)) {
		buf_putc(b, '"');
		put_plain(b, kind, v);
		buf_putc(b, '"');
	}
}

/* A JSON string that to_json() made, of characters that need no escape: see render_needs_text(). */
static struct view unquoted(struct view v)
{
	return v.n >= 2 && v.p[0] == '"' && v.p[v.n - 1] == '"' ? view_make(v.p + 1, v.n - 2) : v;
}

void render_text(struct buf *b, enum render_kind kind, struct view v)
{
	if (!v.p || !length_fits(kind, v))
		return;
	if (kind == RENDER_TEXT)
		buf_view_put(b, v);
	else if (kind == RENDER_RAW)
		buf_view_put(b, unquoted(v));
	else if (!put_bare(b, kind, v))
		put_plain(b, kind, v);
}
