/* The one hard fact: libpq's pipeline mode hands results out in the order of sending, with a NULL behind each command's
 * results and one PGRES_PIPELINE_SYNC for each Sync. Which command a result belongs to is therefore known by counting
 * NULLs inside a segment, and where a segment ends only by its Sync. */
#include "config.h"

#include "db/conn.h"

#include <assert.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/log.h"
#include "db/hosts.h"
#include "db/resolve.h"

enum { NAMES_MAX = 256, NAMES_SLOTS = 512 }; /* prepared statements a connection keeps */

/* Marks in segment.command, beside statement numbers. */
enum { COMMAND_SETTINGS = -1, COMMAND_PREPARE = -2 };

enum conn_state { CLOSED, OPENING, RESOLVING, STARTING, CONNECTING, READY };

enum { WHY_MAX = 512 };

/* What was sent and is not even acknowledged for so long goes nowhere: a host that is gone, a flow that a firewall forgot. The kernel
 * of a server that is frozen, or busy, does acknowledge it. */
#define GONE_AFTER_MS "5000"

struct conn {
	enum conn_state state;
	struct loop *loop;
	struct conn_options options;
	struct conn_owner owner;

	PGconn *pg;
	struct io io;
	struct timer timeout;      /* of connecting, and of what is asked for on its own account */
	struct task broken;        /* libpq refused a call: close from the loop */
	struct resolve *resolving;
	struct hosts hosts;        /* whom to ask, */
	unsigned first;            /* beginning with which, */
	unsigned tried, turns;     /* how many were asked since conn_open(), and how many are at most, */
	int64_t open_until_us;     /* until when, */
	char why[WHY_MAX];         /* and why it was in vain */
	bool picks;                /* which kind of server is wanted is said */
	unsigned host;             /* the number of the one that it was connected to last */
	bool no_writes;            /* the server turned out to take none */
	bool reading;              /* inside the result walk */

	struct segment *head, **tail;
	unsigned n_segments;

	char *names[NAMES_SLOTS];  /* texts prepared under the name that their hash gives */
	unsigned n_names;
	bool settings_prepared;
	bool forget;               /* deallocate all at the next quiet moment */
	bool deallocating;
	struct segment deallocate;
};

static const char SETTINGS_NAME[] = "composure_settings";

/* One statement for all of it. Role first: a role that may not be taken fails before anything else is done. */
#define SETTINGS                                                    \
	"SELECT pg_catalog.set_config('role', $1, true),"           \
	" pg_catalog.set_config('composure.key_id', $2, true),"     \
	" pg_catalog.set_config('composure.tenant', $3, true),"     \
	" pg_catalog.set_config('composure.request_id', $4, true)," \
	" pg_catalog.set_config('search_path', $5, true),"          \
	" pg_catalog.set_config('statement_timeout', $6, true),"    \
	" pg_catalog.set_config('transaction_read_only', $7, true)"

static const char settings[] = SETTINGS;

/* How far the log has come is read before the snapshot of what follows: that sees all of it, and perhaps more. */
static const char settings_and_position[] = SETTINGS
	", CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()"
	" ELSE pg_catalog.pg_current_wal_insert_lsn() END";

enum { SETTINGS_PARAMS = 7, TEXT_OID = 25, POSITION = SETTINGS_PARAMS };

/* What a worker's session needs, whatever the database's defaults; behind a pooler the role carries them
 * (ALTER ROLE ... SET, done by the migrations). */
static const char SESSION_OPTIONS[] =
	"-c default_transaction_isolation=read\\ committed"
	" -c default_transaction_read_only=off"
	" -c timezone=UTC -c datestyle=ISO -c intervalstyle=postgres -c bytea_output=hex -c extra_float_digits=1"
	" -c standard_conforming_strings=on -c client_connection_check_interval=100";

static void on_io(struct io *, unsigned events);
static void on_timeout(struct timer *);
static void on_broken(struct task *);

struct conn *conn_create(struct loop *loop, const struct conn_options *options, const struct conn_owner *owner)
{
	struct conn *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->loop = loop;
	c->options = *options;
	c->owner = *owner;
	c->io.ready = on_io;
	c->timeout.fire = on_timeout;
	c->broken.run = on_broken;
	c->tail = &c->head;
	return c;
}

static void names_clear(struct conn *c)
{
	for (size_t i = 0; i < NAMES_SLOTS; i++) {
		free(c->names[i]);
		c->names[i] = NULL;
	}
	c->n_names = 0;
	c->settings_prepared = false;
}

/* Everything of this connection goes, the segments excepted. */
static void tear_down(struct conn *c)
{
	resolve_cancel(c->resolving);
	c->resolving = NULL;
	loop_io_stop(c->loop, &c->io);
	loop_timer_stop(c->loop, &c->timeout);
	loop_undefer(c->loop, &c->broken);
	PQfinish(c->pg);
	c->pg = NULL;
	hosts_free(&c->hosts);
	c->state = CLOSED;
	c->forget = c->deallocating = false;
	names_clear(c);
}

void conn_destroy(struct conn *c)
{
	if (!c)
		return;
	tear_down(c);
	for (struct segment *s = c->head; s; s = s->next)
		PQclear(s->error_result);
	free(c);
}

static struct segment *segment_pop(struct conn *c)
{
	struct segment *s = c->head;
	c->head = s->next;
	if (!c->head)
		c->tail = &c->head;
	c->n_segments--;
	return s;
}

void conn_close(struct conn *c, struct view why)
{
	if (c->state == CLOSED)
		return;
	char reason[WHY_MAX];
	int n = snprintf(reason, sizeof reason, "%.*s", VIEW_ARG(why));
	tear_down(c);
	/* Owners may open and send again from done(): only what was out before is lost. */
	struct segment *lost = c->head;
	c->head = NULL;
	c->tail = &c->head;
	c->n_segments = 0;
	for (struct segment *s = lost, *next; s; s = next) {
		next = s->next;
		struct db_error none = { .message = view_of(reason) };
		PGresult *held = s->error_result;
		s->error_result = NULL;
		s->done(s, SEGMENT_LOST, s->failed ? s->failed_at : -1, s->failed ? &s->error : &none);
		PQclear(held);
	}
	size_t len = n < 0 ? 0 : (size_t)n < sizeof reason ? (size_t)n : sizeof reason - 1;
	c->owner.closed(c->owner.context, c, view_make(reason, len));
}

bool conn_is_ready(const struct conn *c)
{
	return c->state == READY && !c->broken.link && !c->forget && !c->deallocating;
}

bool conn_is_closed(const struct conn *c)
{
	return c->state == CLOSED;
}

const struct segment *conn_head(const struct conn *c)
{
	return c->head;
}

unsigned conn_segments(const struct conn *c)
{
	return c->n_segments;
}

bool conn_took_no_writes(const struct conn *c)
{
	return c->no_writes;
}

void conn_mistrust(struct conn *c)
{
	if (c->state == READY && c->picks && c->options.first)
		*c->options.first = c->host + 1;
}

int conn_server_version(const struct conn *c)
{
	return c->pg ? PQserverVersion(c->pg) : 0;
}

/* --- opening --- */

static void ignore_notice(void *arg, const char *message)
{
	(void)arg;
	log_debug("postgresql: %s", message);
}

static struct view first_line(const char *text)
{
	struct view v = view_of(text ? text : "");
	const char *end = v.n ? memchr(v.p, '\n', v.n) : NULL;
	if (end)
		v.n = (size_t)(end - v.p);
	return v;
}

/* The string's own keywords, with ours in front of them where it is silent, or in place of them where it may not say. */
struct keywords {
	const char *name[64], *value[64];
	size_t n;
	char options[1024];
};

static void keyword(struct keywords *k, const char *name, const char *value)
{
	if (k->n + 1 < ARRAY_LEN(k->name)) {
		k->name[k->n] = name;
		k->value[k->n] = value;
		k->n++;
	}
}

/* libpq looks at two lists for prefer-standby: at one server it takes whatever that is. Ours is asked once for a standby, and
 * then for anything. */
static const char *attributes_of(const struct conn *c, const PQconninfoOption *given)
{
	const char *wanted = hosts_option(given, "target_session_attrs");
	if (!wanted || c->hosts.n < 2 || strcmp(wanted, "prefer-standby") != 0)
		return NULL;
	return c->tried < c->hosts.n ? "standby" : "any";
}

static void connect_to(struct conn *c, const PQconninfoOption *given, const struct host *host)
{
	struct keywords k = { .n = 0 };
	keyword(&k, "fallback_application_name", "composure");
	keyword(&k, "gssencmode", "disable"); /* its negotiation looks names up and may block */
	keyword(&k, "tcp_user_timeout", GONE_AFTER_MS);
	for (const PQconninfoOption *o = given; o->keyword; o++)
		if (o->val)
			keyword(&k, o->keyword, o->val);
	if (host) {
		keyword(&k, "host", host->host);
		keyword(&k, "hostaddr", host->hostaddr);
		keyword(&k, "port", host->port);
	}
	const char *attributes = attributes_of(c, given);
	if (attributes)
		keyword(&k, "target_session_attrs", attributes);
	keyword(&k, "client_encoding", "UTF8");
	if (!c->options.pooled) {
		const char *theirs = hosts_option(given, "options");
		(void)snprintf(k.options, sizeof k.options, "%s %s", SESSION_OPTIONS, theirs ? theirs : "");
		keyword(&k, "options", k.options);
	}
	c->pg = PQconnectStartParams(k.name, k.value, 0);
}

/* This server will not do: the next one, or that was all. */
static void next_host(struct conn *c, struct view why)
{
	size_t n = strlen(c->why);
	(void)snprintf(c->why + n, sizeof c->why - n, "%s%.*s", n ? "; " : "", VIEW_ARG(why));
	if (++c->tried >= c->turns || loop_now_us(c->loop) >= c->open_until_us) {
		conn_close(c, view_of(c->why));
		return;
	}
	loop_io_stop(c->loop, &c->io);
	PQfinish(c->pg);
	c->pg = NULL;
	c->state = STARTING;
	loop_defer(c->loop, &c->broken);
}

static unsigned host_number(const struct conn *c)
{
	return (c->first + c->tried) % c->hosts.n;
}

/* The one whose turn it is, for its share of what is left. */
static void start(struct conn *c)
{
	char *wrong = NULL;
	PQconninfoOption *given = PQconninfoParse(c->options.dsn, &wrong);
	struct host host;
	if (!given) {
		conn_close(c, first_line(wrong ? wrong : "out of memory"));
		PQfreemem(wrong);
		return;
	}
	int64_t now = loop_now_us(c->loop);
	const char *wanted = hosts_option(given, "target_session_attrs");
	c->picks = c->hosts.n > 1 && wanted && strcmp(wanted, "any") != 0;
	bool twice = c->picks && strcmp(wanted, "prefer-standby") == 0;
	c->turns = c->hosts.n ? c->hosts.n * (twice ? 2 : 1) : 1;
	loop_timer_set(c->loop, &c->timeout, now + (c->open_until_us - now) / (c->turns - c->tried));
	c->state = CONNECTING;
	if (c->hosts.n && !hosts_at(&c->hosts, host_number(c), &host)) {
		PQconninfoFree(given);
		next_host(c, VIEW("a host name in the DSN is too long"));
		return;
	}
	connect_to(c, given, c->hosts.n ? &host : NULL);
	PQconninfoFree(given);
	if (!c->pg || PQstatus(c->pg) == CONNECTION_BAD) {
		next_host(c, first_line(c->pg ? PQerrorMessage(c->pg) : "out of memory"));
		return;
	}
	PQsetNoticeProcessor(c->pg, ignore_notice, NULL);
	if (loop_io_start(c->loop, &c->io, PQsocket(c->pg), LOOP_WRITE, false) < 0)
		next_host(c, VIEW("its socket cannot be watched"));
}

static void on_resolved(void *context, const char *host, const char *hostaddr, const char *port)
{
	struct conn *c = context;
	c->resolving = NULL;
	if (!hostaddr)
		conn_close(c, VIEW("the host name in the DSN has no address"));
	else if (!hosts_set(&c->hosts, host, hostaddr, port))
		conn_close(c, VIEW("out of memory"));
	else
		start(c);
}

/* Deferred, so that a connection that fails at once does not call its owner from within conn_open(). */
static void on_open(struct conn *c)
{
	if (!hosts_read(&c->hosts, c->options.dsn)) {
		conn_close(c, VIEW("out of memory"));
		return;
	}
	if (c->hosts.hostaddr || !resolve_needed(c->hosts.host)) {
		start(c);
		return;
	}
	c->state = RESOLVING;
	c->resolving = resolve_start(c->loop, c->hosts.host, c->hosts.port, on_resolved, c);
	if (!c->resolving)
		conn_close(c, VIEW("no thread for the name look-up"));
}

void conn_open(struct conn *c)
{
	assert(c->state == CLOSED);
	c->state = OPENING;
	c->tried = 0;
	c->first = c->options.first ? *c->options.first : 0;
	c->why[0] = '\0';
	c->no_writes = false;
	c->open_until_us = loop_now_us(c->loop) + c->options.connect_timeout_us;
	loop_timer_set(c->loop, &c->timeout, c->open_until_us);
	loop_defer(c->loop, &c->broken);
}

/* One task serves all: it opens what is to be opened and closes what is broken. */
static void on_broken(struct task *t)
{
	struct conn *c = CONTAINER_OF(t, struct conn, broken);
	if (c->state == OPENING)
		on_open(c);
	else if (c->state == STARTING)
		start(c);
	else if (c->no_writes)
		conn_close(c, VIEW("the server takes no writes: it is a replica, or has become one"));
	else
		conn_close(c, first_line(PQerrorMessage(c->pg)));
}

static void on_timeout(struct timer *t)
{
	struct conn *c = CONTAINER_OF(t, struct conn, timeout);
	if (c->state == CONNECTING)
		next_host(c, VIEW("connecting took too long"));
	else if (c->deallocating)
		conn_close(c, VIEW("forgetting prepared statements took too long"));
	else
		conn_close(c, VIEW("connecting took too long"));
}

static void opened(struct conn *c)
{
	loop_timer_stop(c->loop, &c->timeout);
	if (PQsetnonblocking(c->pg, 1) != 0 || PQenterPipelineMode(c->pg) != 1) {
		conn_close(c, first_line(PQerrorMessage(c->pg)));
		return;
	}
	c->host = c->hosts.n ? host_number(c) : 0;
	if (c->options.first && c->hosts.n)
		*c->options.first = c->host;
	c->tried = 0;
	c->state = READY;
	c->owner.ready(c->owner.context, c);
}

/* With several addresses libpq may close one socket and open the next under the same number: the kernel has then
 * forgotten the old watch, so it is always begun anew. (A string of one host that libpq alone can read may have them.) */
static void connect_step(struct conn *c)
{
	PostgresPollingStatusType next = PQconnectPoll(c->pg);
	loop_io_stop(c->loop, &c->io);
	if (next == PGRES_POLLING_FAILED) {
		next_host(c, first_line(PQerrorMessage(c->pg)));
		return;
	}
	unsigned events = next == PGRES_POLLING_WRITING ? LOOP_WRITE : LOOP_READ;
	if (loop_io_start(c->loop, &c->io, PQsocket(c->pg), events, false) < 0)
		conn_close(c, VIEW("its socket cannot be watched"));
	else if (next == PGRES_POLLING_OK)
		opened(c);
}

/* --- sending --- */

static void broken(struct conn *c)
{
	loop_defer(c->loop, &c->broken);
}

static void command_add(struct conn *c, struct segment *s, int sent, int8_t what)
{
	if (sent != 1) {
		broken(c);
		return;
	}
	assert(s->n_commands < sizeof s->command);
	s->command[s->n_commands++] = what;
}

void conn_begin(struct conn *c, struct segment *s)
{
	s->next = NULL;
	s->n_statements = 0;
	s->lsn = 0;
	s->n_commands = s->at = 0;
	s->failed = false;
	s->failed_at = -1;
	s->writes = false;
	s->error_result = NULL;
	s->head_since_us = loop_now_us(c->loop);
	*c->tail = s;
	c->tail = &s->next;
	c->n_segments++;
}

/* libpq wants NUL-terminated values. The views of a session are short; what does not fit is a bug of the caller's. */
static const char *terminated(char *room, size_t size, struct view v)
{
	assert(v.n < size);
	if (v.n)
		memcpy(room, v.p, v.n);
	room[v.n] = '\0';
	return room;
}

void conn_settings(struct conn *c, struct segment *s, const struct session *who, int64_t timeout_ms, bool read_only)
{
	s->writes = !read_only;
	char room[5][SESSION_VALUE_MAX + 1], digits[DECIMAL_MAX], timeout[DECIMAL_MAX + 1];
	(void)terminated(timeout, sizeof timeout, decimal(timeout_ms < 1 ? 1 : (uint64_t)timeout_ms, digits));
	const char *values[SETTINGS_PARAMS] = {
		terminated(room[0], sizeof room[0], who->role.p ? who->role : VIEW("none")),
		terminated(room[1], sizeof room[1], who->key_id),
		terminated(room[2], sizeof room[2], who->tenant),
		terminated(room[3], sizeof room[3], who->request_id),
		terminated(room[4], sizeof room[4], who->search_path),
		timeout,
		read_only ? "on" : "off",
	};
	static const Oid types[SETTINGS_PARAMS] = { TEXT_OID, TEXT_OID, TEXT_OID, TEXT_OID, TEXT_OID, TEXT_OID, TEXT_OID };
	const char *text = c->options.positions ? settings_and_position : settings;
	if (c->options.pooled) {
		command_add(c, s, PQsendQueryParams(c->pg, text, SETTINGS_PARAMS, types, values, NULL, NULL, 1),
		            COMMAND_SETTINGS);
		return;
	}
	if (!c->settings_prepared) {
		command_add(c, s, PQsendPrepare(c->pg, SETTINGS_NAME, text, SETTINGS_PARAMS, types), COMMAND_PREPARE);
		c->settings_prepared = true;
	}
	command_add(c, s, PQsendQueryPrepared(c->pg, SETTINGS_NAME, SETTINGS_PARAMS, values, NULL, NULL, 1),
	            COMMAND_SETTINGS);
}

/* The slot where this text is, or may be put; NAMES_SLOTS when the table is full or the name is taken by another text. */
static size_t name_slot(const struct conn *c, const struct statement *st)
{
	size_t at = st->hash % NAMES_SLOTS;
	for (size_t tried = 0; tried < NAMES_SLOTS; tried++, at = (at + 1) % NAMES_SLOTS) {
		if (!c->names[at])
			return c->n_names < NAMES_MAX ? at : NAMES_SLOTS;
		if (strcmp(c->names[at], st->text) == 0)
			return at;
	}
	return NAMES_SLOTS;
}

void conn_statement(struct conn *c, struct segment *s, const struct statement *st, bool named)
{
	assert(s->n_statements < SEGMENT_STATEMENTS_MAX);
	int8_t number = (int8_t)s->n_statements++;
	size_t slot = named && !c->options.pooled ? name_slot(c, st) : NAMES_SLOTS;
	if (slot == NAMES_SLOTS) {
		c->forget |= named && !c->options.pooled;
		command_add(c, s, PQsendQueryParams(c->pg, st->text, st->n_params, st->types, st->values, NULL, NULL, 1), number);
		return;
	}
	char digits[DECIMAL_MAX], name[1 + DECIMAL_MAX + 1] = "c";
	(void)terminated(name + 1, sizeof name - 1, decimal(slot, digits));
	if (!c->names[slot]) {
		c->names[slot] = strdup(st->text);
		if (!c->names[slot]) {
			broken(c);
			return;
		}
		c->n_names++;
		command_add(c, s, PQsendPrepare(c->pg, name, st->text, st->n_params, st->types), COMMAND_PREPARE);
	}
	command_add(c, s, PQsendQueryPrepared(c->pg, name, st->n_params, st->values, NULL, NULL, 1), number);
}

void conn_text(struct conn *c, struct segment *s, const char *sql)
{
	assert(s->n_statements < SEGMENT_STATEMENTS_MAX);
	int8_t number = (int8_t)s->n_statements++;
	command_add(c, s, PQsendQueryParams(c->pg, sql, 0, NULL, NULL, NULL, NULL, 1), number);
}

/* DISCARD ALL, which is not to be had in a pipeline, by its parts. */
void conn_scrub(struct conn *c, struct segment *s)
{
	static const char *const parts[] = {
		"RESET ALL",
		"RESET ROLE",
		"SELECT pg_catalog.pg_advisory_unlock_all()",
		"UNLISTEN *",
		"CLOSE ALL",
		"DISCARD TEMP",
		"DEALLOCATE ALL",
	};
	for (size_t i = 0; i < ARRAY_LEN(parts); i++)
		conn_text(c, s, parts[i]);
	names_clear(c);
}

static void watch(struct conn *c, int flushed)
{
	if (flushed < 0)
		broken(c);
	else if (loop_io_change(c->loop, &c->io, LOOP_READ | (flushed ? LOOP_WRITE : 0u)) < 0)
		broken(c);
}

void conn_sync(struct conn *c, struct segment *s)
{
	(void)s;
	if (PQpipelineSync(c->pg) != 1)
		broken(c);
	else
		watch(c, PQflush(c->pg));
}

/* --- results --- */

static struct view field(const PGresult *r, int code)
{
	return view_of(PQresultErrorField(r, code));
}

static bool sqlstate_is(const struct segment *s, const char *state)
{
	return strcmp(s->error.sqlstate, state) == 0;
}

static bool is_on(const struct conn *c, const char *parameter)
{
	const char *value = PQparameterStatus(c->pg, parameter);
	return value && strcmp(value, "on") == 0;
}

/* A write on a server in recovery, or a read-only one, fails of its settings; or of itself, which the user's own code may do, too:
 * then it counts only where the server says so (PostgreSQL 14 and later do). */
static bool says_no_writes(const struct conn *c, const struct segment *s)
{
	if (!s->writes)
		return false;
	if (s->at < s->n_commands && s->command[s->at] == COMMAND_SETTINGS)
		return sqlstate_is(s, "25006") || sqlstate_is(s, "25001") || sqlstate_is(s, "0A000");
	return sqlstate_is(s, "25006") && (is_on(c, "in_hot_standby") || is_on(c, "default_transaction_read_only"));
}

/* Keeps the first error of the oldest segment, and the result that its words lie in. Takes r over. */
static void segment_error(struct conn *c, PGresult *r)
{
	struct segment *s = c->head;
	if (s->failed) {
		PQclear(r);
		return;
	}
	s->failed = true;
	s->failed_command = s->at;
	s->failed_at = s->at < s->n_commands && s->command[s->at] >= 0 ? s->command[s->at] : -1;
	/* A failed Parse is the fault of the statement behind it. */
	if (s->at + 1 < s->n_commands && s->command[s->at] == COMMAND_PREPARE)
		s->failed_at = s->command[s->at + 1] >= 0 ? s->command[s->at + 1] : -1;
	s->error_result = r;
	struct view state = field(r, PG_DIAG_SQLSTATE);
	s->error = (struct db_error){
		.message = field(r, PG_DIAG_MESSAGE_PRIMARY),
		.detail = field(r, PG_DIAG_MESSAGE_DETAIL),
		.hint = field(r, PG_DIAG_MESSAGE_HINT),
		.constraint = field(r, PG_DIAG_CONSTRAINT_NAME),
		.column = field(r, PG_DIAG_COLUMN_NAME),
		.table = field(r, PG_DIAG_TABLE_NAME),
		.context = field(r, PG_DIAG_CONTEXT),
	};
	if (state.n == 5)
		memcpy(s->error.sqlstate, state.p, 5);
	if (!s->error.message.p)
		s->error.message = first_line(PQresultErrorMessage(r));
	s->error.no_writes = says_no_writes(c, s);
}

/* Names that this segment was to prepare are not there when it failed before; a statement that somebody deallocated,
 * or whose result type changed, is not usable either. Forgetting them all is rare and always right. */
static bool must_forget(const struct segment *s)
{
	if (sqlstate_is(s, "26000") || sqlstate_is(s, "0A000") || sqlstate_is(s, "42P05"))
		return true;
	for (unsigned i = s->failed_command; i < s->n_commands; i++)
		if (s->command[i] == COMMAND_PREPARE)
			return true;
	return false;
}

/* The next connection is to be another server's, whoever else finds out the same. */
static void renounce(struct conn *c)
{
	if (c->options.first)
		*c->options.first = c->host + 1;
	c->no_writes = true;
	broken(c);
}

static void segment_end(struct conn *c)
{
	struct segment *s = segment_pop(c);
	if (c->head)
		c->head->head_since_us = loop_now_us(c->loop);
	if (s->failed && must_forget(s))
		c->forget = true;
	if (s->failed && s->error.no_writes)
		renounce(c);
	PGresult *held = s->error_result;
	s->error_result = NULL;
	s->done(s, s->failed ? SEGMENT_FAILED : SEGMENT_DONE, s->failed_at, s->failed ? &s->error : NULL);
	PQclear(held);
}

static void take_position(struct segment *s, const PGresult *r)
{
	if (PQntuples(r) == 1 && PQnfields(r) > POSITION && PQgetlength(r, 0, POSITION) == sizeof s->lsn)
		s->lsn = (uint64_t)rows_int(view_make(PQgetvalue(r, 0, POSITION), sizeof s->lsn));
}

static void take_result(struct conn *c, PGresult *r)
{
	struct segment *s = c->head;
	bool kept = false;
	switch (PQresultStatus(r)) {
	case PGRES_PIPELINE_SYNC:
		PQclear(r);
		segment_end(c);
		return;
	case PGRES_PIPELINE_ABORTED:
		break;
	case PGRES_FATAL_ERROR:
	case PGRES_BAD_RESPONSE:
		segment_error(c, r);
		return;
	default:
		if (s->at < s->n_commands && s->command[s->at] == COMMAND_SETTINGS)
			take_position(s, r);
		else if (s->at < s->n_commands && s->command[s->at] >= 0 && !s->failed)
			kept = s->rows(s, (unsigned)s->command[s->at], (struct rows *)(void *)r);
	}
	if (!kept)
		PQclear(r);
}

static bool deallocate_rows(struct segment *s, unsigned statement, struct rows *r)
{
	(void)s, (void)statement, (void)r;
	return false;
}

static void deallocate_done(struct segment *s, enum segment_end end, int failed, const struct db_error *error)
{
	struct conn *c = CONTAINER_OF(s, struct conn, deallocate);
	(void)end, (void)failed, (void)error;
	c->deallocating = false;
	loop_timer_stop(c->loop, &c->timeout);
}

/* Nothing is out: a moment to forget names, so that every later segment prepares afresh. */
static void forget_names(struct conn *c)
{
	c->forget = false;
	c->deallocating = true;
	names_clear(c);
	/* It is nobody's query, so nobody else looks after it. */
	loop_timer_set(c->loop, &c->timeout, loop_now_us(c->loop) + c->options.connect_timeout_us);
	struct segment *s = &c->deallocate;
	s->rows = deallocate_rows;
	s->done = deallocate_done;
	conn_begin(c, s);
	s->n_statements = 1;
	command_add(c, s, PQsendQueryParams(c->pg, "DEALLOCATE ALL", 0, NULL, NULL, NULL, NULL, 1), 0);
	conn_sync(c, s);
}

/* False when the connection turned out to be gone. */
static bool take_results(struct conn *c)
{
	/* libpq is asked only while something is out: its answer to an idle pipeline is NULL for ever. */
	while (c->head && !PQisBusy(c->pg)) {
		PGresult *r = PQgetResult(c->pg);
		if (r)
			take_result(c, r);
		else if (PQstatus(c->pg) == CONNECTION_BAD)
			return false;
		else
			c->head->at++;
		if (c->state != READY)
			return true; /* closed by a callback */
	}
	return true;
}

/* Nobody here LISTENs, but code of the user's may, and libpq keeps what comes. */
static void drop_notifications(struct conn *c)
{
	for (PGnotify *n; (n = PQnotifies(c->pg)) != NULL;)
		PQfreemem(n);
}

static void on_io(struct io *io, unsigned events)
{
	struct conn *c = CONTAINER_OF(io, struct conn, io);
	if (c->state == CONNECTING) {
		connect_step(c);
		return;
	}
	if (events & LOOP_WRITE)
		watch(c, PQflush(c->pg));
	if (!(events & LOOP_READ))
		return;
	bool alive = PQconsumeInput(c->pg) == 1;
	/* What came before the end still counts: a FATAL error says why. */
	alive = take_results(c) && alive;
	if (c->state != READY)
		return;
	if (!alive || PQstatus(c->pg) == CONNECTION_BAD) {
		conn_close(c, first_line(PQerrorMessage(c->pg)));
		return;
	}
	/* Not inside a transaction that somebody holds open: it may have failed. */
	if (c->forget && !c->head && PQtransactionStatus(c->pg) == PQTRANS_IDLE)
		forget_names(c);
	drop_notifications(c);
	c->owner.progress(c->owner.context, c);
}
