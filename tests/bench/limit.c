/* The least that could do Composure's job for two requests, to measure Composure against: a page of the demo's users
 * after a cursor, and one of them. epoll, the least of FastCGI, libpq in pipeline mode on four connections, prepared
 * statements, binary rows; the same bytes come out. No key, no catalog, no deadline, no error is looked after.
 *
 *     limit [--bare]           COMPOSURE_DSN; the listening socket is fd 0, as spawn-fcgi hands it over
 *
 * The rules for settings and Sync are those of src/db/pool.c: what is ready in one wake-up goes to the connection with
 * the least on it, at most eight statements to a connection, with one settings call and one Sync for them all. --bare:
 * no settings, one Sync for all of a wake-up, on the connection with the least on it. */
#include "config.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "least.h"

enum { CONNECTIONS = 4, DEPTH = 8, PAGE = 50, OUT = 65536, COLUMNS = 6 };

/* What src/db/conn.c sets for each segment, and what src/query/read.c asks. */
static const char SETTINGS[] =
	"SELECT pg_catalog.set_config('role', $1, true),"
	" pg_catalog.set_config('composure.key_id', $2, true),"
	" pg_catalog.set_config('composure.tenant', $3, true),"
	" pg_catalog.set_config('composure.request_id', $4, true),"
	" pg_catalog.set_config('search_path', $5, true),"
	" pg_catalog.set_config('statement_timeout', $6, true),"
	" pg_catalog.set_config('transaction_read_only', $7, true)";
static const char *const settings[] = { "api_user", "bench0bench000", "", "", "public", "10000", "on" };
enum { N_SETTINGS = sizeof settings / sizeof *settings };

#define COLUMN_LIST "t.\"id\", t.\"name\", t.\"email\", t.\"country\", t.\"balance\", t.\"created_at\""
static const char PAGE_SQL[] = "SELECT " COLUMN_LIST " FROM \"public\".\"users\" t WHERE (t.\"id\") > ($1)"
			       " ORDER BY t.\"id\" LIMIT 51";
static const char ROW_SQL[] = "SELECT " COLUMN_LIST " FROM \"public\".\"users\" t WHERE t.\"id\" = $1";

enum kind { KIND_PAGE, KIND_ROW };
static const char *const statement_name[] = { "page", "row" };

struct connection {
	struct watched watched;
	PGconn *pg;
	struct peer *first, **last; /* who waits for an answer, in the order of sending */
	unsigned n_out;
};

static struct connection connections[CONNECTIONS];
static struct peer *first_ready, **last_ready = &first_ready;
static bool bare;

/* --- rendering --- */

static char *put(char *at, const void *p, size_t n)
{
	memcpy(at, p, n);
	return at + n;
}

#define LIT(at, lit) put((at), "" lit, sizeof(lit) - 1)

static char *put_number(char *at, uint64_t v)
{
	char digits[20], *p = digits + sizeof digits;
	do
		*--p = (char)('0' + v % 10);
	while (v /= 10);
	return put(at, p, (size_t)(digits + sizeof digits - p));
}

static char *put_padded(char *at, unsigned v, int width)
{
	for (int i = width - 1; i >= 0; i--, v /= 10)
		at[i] = (char)('0' + v % 10);
	return at + width;
}

static char *put_text(char *at, const char *p, size_t n)
{
	bool special = false;
	for (size_t i = 0; i < n; i++)
		special |= (unsigned char)p[i] < 0x20 || p[i] == '"' || p[i] == '\\';
	if (special)
		least_fail("limit", "the demo has no such text");
	*at++ = '"';
	at = put(at, p, n);
	*at++ = '"';
	return at;
}

static uint64_t be(const char *p, unsigned n)
{
	uint64_t v = 0;
	for (unsigned i = 0; i < n; i++)
		v = v << 8 | (unsigned char)p[i];
	return v;
}

/* numeric(14,2), not negative: digits of 10000, the first one of weight w. */
static char *put_numeric(char *at, const char *p)
{
	int n = (int)be(p, 2), w = (int16_t)be(p + 2, 2);
	uint64_t whole = 0;
	for (int i = 0; i <= w; i++)
		whole = whole * 10000 + (i < n ? be(p + 8 + 2 * i, 2) : 0);
	int i = w + 1;
	at = put_number(at, whole);
	*at++ = '.';
	return put_padded(at, i >= 0 && i < n ? (unsigned)be(p + 8 + 2 * i, 2) / 100 : 0, 2);
}

/* Howard Hinnant's civil_from_days, for days after 2000-01-01. */
static char *put_time(char *at, uint64_t us)
{
	unsigned days = (unsigned)(us / 86400000000), seconds = (unsigned)(us / 1000000 % 86400);
	unsigned fraction = (unsigned)(us % 1000000);
	unsigned z = days + 10957 + 719468, era = z / 146097, doe = z % 146097;
	unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365, doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	unsigned mp = (5 * doy + 2) / 153, month = mp < 10 ? mp + 3 : mp - 9;
	*at++ = '"';
	at = put_padded(at, yoe + era * 400 + (month <= 2), 4);
	*at++ = '-';
	at = put_padded(at, month, 2);
	*at++ = '-';
	at = put_padded(at, doy - (153 * mp + 2) / 5 + 1, 2);
	*at++ = 'T';
	at = put_padded(at, seconds / 3600, 2);
	*at++ = ':';
	at = put_padded(at, seconds / 60 % 60, 2);
	*at++ = ':';
	at = put_padded(at, seconds % 60, 2);
	if (fraction) {
		*at++ = '.';
		for (unsigned unit = 100000; fraction; fraction %= unit, unit /= 10)
			*at++ = (char)('0' + fraction / unit);
	}
	return LIT(at, "+00:00\"");
}

static char *put_row(char *at, const PGresult *r, int row)
{
	at = put_number(LIT(at, "{\"id\":"), be(PQgetvalue(r, row, 0), 8));
	at = put_text(LIT(at, ",\"name\":"), PQgetvalue(r, row, 1), (size_t)PQgetlength(r, row, 1));
	at = put_text(LIT(at, ",\"email\":"), PQgetvalue(r, row, 2), (size_t)PQgetlength(r, row, 2));
	at = put_text(LIT(at, ",\"country\":"), PQgetvalue(r, row, 3), (size_t)PQgetlength(r, row, 3));
	at = put_numeric(LIT(at, ",\"balance\":"), PQgetvalue(r, row, 4));
	at = put_time(LIT(at, ",\"created_at\":"), be(PQgetvalue(r, row, 5), 8));
	*at++ = '}';
	return at;
}

static const char BASE64URL[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static char *put_cursor(char *at, uint64_t id)
{
	char json[32] = { 0 }, *end = put_number(LIT(json, "{\"id\":"), id);
	*end++ = '}';
	size_t n = (size_t)(end - json);
	for (size_t i = 0; i < n; i += 3) {
		uint64_t three = be(json + i, 3);
		for (size_t k = 0; k < 4 && i + k <= n; k++)
			*at++ = BASE64URL[three >> (18 - 6 * k) & 63];
	}
	return at;
}

static char *put_page(char *at, const PGresult *r)
{
	int rows = PQntuples(r), n = rows > PAGE ? PAGE : rows;
	at = LIT(at, "{\"data\":[");
	for (int i = 0; i < n; i++) {
		if (i)
			*at++ = ',';
		at = put_row(at, r, i);
	}
	at = LIT(at, "],\"next_cursor\":");
	if (rows <= PAGE)
		return LIT(at, "null,\"has_more\":false}");
	*at++ = '"';
	at = put_cursor(at, be(PQgetvalue(r, n - 1, 0), 8));
	return LIT(at, "\",\"has_more\":true}");
}

/* The body is made first, the head is then put right in front of it. */
static void answer(struct peer *p, const PGresult *r)
{
	static char out[LEAST_FRONT + LEAST_HEAD + OUT + LEAST_BACK];
	char *body = out + LEAST_FRONT + LEAST_HEAD, head[LEAST_HEAD];
	if (p->kind == KIND_ROW && PQntuples(r) != 1)
		least_fail("limit", "the demo has no such row");
	char *end = p->kind == KIND_PAGE ? put_page(body, r) : put_row(body, r, 0);
	size_t n_head = (size_t)(least_head(head, (size_t)(end - body), p->kind == KIND_PAGE) - head);
	memcpy(body - n_head, head, n_head);
	least_answer(p, body - n_head - LEAST_FRONT, (size_t)(end - body) + n_head);
}

/* --- asking --- */

static uint64_t decode_cursor(const char *p)
{
	char json[64];
	size_t n = 0;
	for (; n < 60; n += 3, p += 4) {
		unsigned four = 0;
		for (size_t k = 0; k < 4; k++) {
			const char *at = p[k] ? strchr(BASE64URL, p[k]) : NULL;
			four = four << 6 | (at ? (unsigned)(at - BASE64URL) : 0);
		}
		json[n] = (char)(four >> 16);
		json[n + 1] = (char)(four >> 8);
		json[n + 2] = (char)four;
		if (memchr(json + n, '}', 3))
			break;
	}
	json[n + 3 > 63 ? 63 : n + 3] = '\0';
	return strtoull(json + sizeof "{\"id\":" - 1, NULL, 10);
}

/* /api/users?limit=50&cursor=... or /api/users/128. A value follows its name, and its length stands in front of it. */
static void on_request(struct peer *p, const char *params, size_t n)
{
	static const char NAME[] = "REQUEST_URI";
	const char *name = memmem(params, n, NAME, sizeof NAME - 1);
	char uri[128];
	if (!name || name == params || (signed char)name[-1] < (int)sizeof "/api/users/")
		least_fail("limit", "no such REQUEST_URI");
	memcpy(uri, name + sizeof NAME - 1, (size_t)name[-1]);
	uri[(size_t)name[-1]] = '\0';
	p->kind = uri[10] == '?' ? KIND_PAGE : KIND_ROW;
	const char *cursor = strstr(uri, "cursor=");
	p->wanted = p->kind == KIND_ROW ? strtoull(uri + 11, NULL, 10) : cursor ? decode_cursor(cursor + 7) : 0;
	p->next = NULL;
	*last_ready = p;
	last_ready = &p->next;
}

static void check(const struct connection *c, int good)
{
	if (good != 1)
		least_fail("limit", PQerrorMessage(c->pg));
}

static void send_some(struct connection *c, unsigned most)
{
	if (!bare)
		check(c, PQsendQueryPrepared(c->pg, "settings", N_SETTINGS, settings, NULL, NULL, 1));
	for (; most && first_ready; most--) {
		struct peer *p = first_ready;
		char id[24];
		const char *values[] = { id };
		*put_number(id, p->wanted) = '\0';
		check(c, PQsendQueryPrepared(c->pg, statement_name[p->kind], 1, values, NULL, NULL, 1));
		first_ready = p->next;
		p->next = NULL;
		*c->last = p;
		c->last = &p->next;
		c->n_out++;
	}
	if (!first_ready)
		last_ready = &first_ready;
	check(c, PQpipelineSync(c->pg));
	check(c, PQflush(c->pg) == 0);
}

static void flush(void)
{
	while (first_ready) {
		struct connection *best = connections;
		for (struct connection *c = connections; c < connections + CONNECTIONS; c++)
			if (c->n_out < best->n_out)
				best = c;
		if (!bare && best->n_out >= DEPTH)
			return;
		send_some(best, bare ? (unsigned)-1 : DEPTH - best->n_out);
	}
}

/* Results of the settings, of statements, of Syncs, and the NULLs between them: only a statement's has rows that
 * somebody waits for, and settings are told by their number of columns. */
static void on_results(struct watched *w)
{
	struct connection *c = (struct connection *)(void *)w;
	check(c, PQconsumeInput(c->pg));
	while (c->first && !PQisBusy(c->pg)) {
		PGresult *r = PQgetResult(c->pg);
		if (PQresultStatus(r) == PGRES_TUPLES_OK && PQnfields(r) == COLUMNS) {
			struct peer *p = c->first;
			c->first = p->next;
			if (!c->first)
				c->last = &c->first;
			c->n_out--;
			answer(p, r);
		} else if (r && PQresultStatus(r) != PGRES_TUPLES_OK && PQresultStatus(r) != PGRES_PIPELINE_SYNC) {
			least_fail("limit", PQresultErrorMessage(r));
		}
		PQclear(r);
	}
}

/* --- the start --- */

static void prepare(const struct connection *c, const char *name, const char *sql, int n, const Oid *types)
{
	PGresult *r = PQprepare(c->pg, name, sql, n, types);
	if (PQresultStatus(r) != PGRES_COMMAND_OK)
		least_fail("limit", PQresultErrorMessage(r));
	PQclear(r);
}

static void open_connection(struct connection *c, const char *dsn)
{
	static const Oid texts[N_SETTINGS] = { 25, 25, 25, 25, 25, 25, 25 }, bigint = 20;
	c->pg = PQconnectdb(dsn);
	if (PQstatus(c->pg) != CONNECTION_OK)
		least_fail("limit", PQerrorMessage(c->pg));
	prepare(c, "settings", SETTINGS, N_SETTINGS, texts);
	/* Without settings there is no role: the rows are read as api_user all the same. */
	PQclear(PQexec(c->pg, bare ? "SET ROLE api_user" : "SELECT 1"));
	prepare(c, statement_name[KIND_PAGE], PAGE_SQL, 1, &bigint);
	prepare(c, statement_name[KIND_ROW], ROW_SQL, 1, &bigint);
	check(c, PQsetnonblocking(c->pg, 1) == 0);
	check(c, PQenterPipelineMode(c->pg));
	c->last = &c->first;
	c->watched = (struct watched){ on_results, PQsocket(c->pg) };
	least_watch(&c->watched);
}

int main(int argc, char **argv)
{
	const char *dsn = getenv("COMPOSURE_DSN");
	bare = argc == 2 && strcmp(argv[1], "--bare") == 0;
	if (argc != 1 + bare || !dsn)
		least_fail(argv[0], "the one option is --bare, and COMPOSURE_DSN names the database");
	for (struct connection *c = connections; c < connections + CONNECTIONS; c++)
		open_connection(c, dsn);
	return least_run(&(struct least){ .request = on_request, .flush = flush });
}
