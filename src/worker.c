/* The event loop's owner: accepts connections, carries their requests to exchanges and the answers back. */
#include "config.h"

#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "cache/flight.h"
#include "cache/store.h"
#include "exchange.h"
#include "guard.h"
#include "http/cgi.h"
#include "http/fastcgi.h"
#include "http/peer.h"
#include "limiter.h"
#include "recall.h"
#include "replicas.h"
#include "shm/progress.h"
#include "watcher.h"

enum {
	ACCEPT_AT_ONCE = 16,
	ACCEPT_PAUSE_US = 100000,
	LEAVE_TO_OTHERS_US = 2000,
	HAND_OVER_US = 50000,
	LEAVE_US = 20000000, /* more than idle_ms: what is used still, is used all the time */
	LARGE_BYTES = 131072,
	SLOWEST_BYTES_S = 32768, /* of an answer: it lies in memory as long as it is being read */
};

struct worker {
	struct service service;
	struct io listener, signals;
	struct timer accept_again;
	int listening_fd;
	struct peer_owner owner;
	struct peer_options peer_options;
	unsigned n_peers;
	bool kept;   /* the web server keeps connections, as far as its last request said */
	int64_t next_hand_over_us, leave_by_us;
	bool waited; /* left a connection to others for a moment: takes the next one whatever they have */
	bool leaving;
};

/* --- the service --- */

/* Installations of one user are told apart by what they serve: by all that says which database that is, which libpq
 * takes out of its own variables too. */
static void instance_name(const struct settings *set, char out[17])
{
	static const char *const variables[] = {
		"PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGOPTIONS", "PGSERVICE", "PGSERVICEFILE",
		"PGSYSCONFDIR", "PGTARGETSESSIONATTRS",
	};
	struct sha256 h;
	uint8_t hash[SHA256_BYTES];
	sha256_init(&h);
	sha256_add(&h, view_make(set->dsn, strlen(set->dsn) + 1));
	sha256_add(&h, view_make(set->mount, strlen(set->mount) + 1));
	sha256_add(&h, view_make(set->search_path, strlen(set->search_path) + 1));
	/* Only where there are some: without, the name is what it was before there were replicas. */
	if (*set->read_dsn)
		sha256_add(&h, view_of(set->read_dsn));
	for (size_t i = 0; i < ARRAY_LEN(variables); i++) {
		const char *value = getenv(variables[i]);
		value = value ? value : "";
		sha256_add(&h, view_make(value, strlen(value) + 1));
	}
	sha256_end(&h, hash);
	for (int i = 0; i < 8; i++)
		(void)snprintf(out + 2 * i, 3, "%02x", hash[i]);
}

/* What the workers of this host share, or memory of our own in its place. */
static bool memory_open(struct service *s)
{
	const struct settings *set = s->settings;
	char instance[17];
	instance_name(set, instance);
	(void)signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is then an error, and memory is not shared */
	s->watch = watch_open(set->runtime_dir, instance);
	s->region = region_open(&(struct region_options){
		.folder = set->runtime_dir, .instance = instance, .store_bytes = (size_t)set->cache_bytes,
	});
	if (s->watch && s->region) {
		s->published = published_open(s->region, AREA_CATALOG);
		s->keys = keycache_open(s->region, s->watch, set->key_ttl_ms * 1000, set->key_grace_ms * 1000);
	}
	if (s->region) {
		s->limits = limits_open(s->region);
		s->store = store_open(s->region);
		s->flights = flights_open(s->region);
		s->breakers = breakers_open(s->region);
		s->progress = progress_open(s->region);
	}
	if (!s->published || !s->keys || !s->limits || !s->store || !s->flights || !s->breakers) {
		log_error("out of memory");
		return false;
	}
	region_ready(s->region);
	struct view why = region_is_shared(s->region) ? watch_note(s->watch) : region_note(s->region);
	if (why.n)
		log_warn("memory is not shared with other workers: %.*s", VIEW_ARG(why));
	return true;
}

/* For pauses with jitter: each process has its own. */
static void seed_chance(void)
{
	unsigned seed;
	if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != sizeof seed)
		seed = (unsigned)clock_us() ^ (unsigned)getpid();
	srandom(seed);
}

static bool service_open(struct service *s, const struct settings *set)
{
	if (!limiter_settings(set))
		return false;
	*s = (struct service){ .settings = set, .loop = loop_create() };
	seed_chance();
	if (!s->loop) {
		log_error("no event loop: %s", strerror(errno));
		return false;
	}
	s->log = accesslog_open(s->loop, set->log);
	if (!s->log) {
		log_error("the access log %s cannot be opened: %s", set->log, strerror(errno));
		return false;
	}
	guard_terms(set, &s->server_terms, &s->resource_terms);
	if (!memory_open(s))
		return false;
	guard_round(s);
	s->primary = breaker_find(s->breakers, VIEW("postgresql"));
	struct pool_options options = {
		.conn = {
			.dsn = set->dsn,
			.positions = *set->read_dsn,
			.pooled = strcmp(set->pooler, "transaction") == 0,
			.connect_timeout_us = set->connect_timeout_ms * 1000,
		},
		.connections = (unsigned)set->connections,
		.breaker = s->primary,
		.breaker_terms = &s->server_terms,
		.share_segments = set->share_segments,
	};
	s->pool = pool_create(s->loop, &options);
	s->memo = keymemo_create();
	if (!s->pool || !s->memo)
		return false;
	s->replicas = replicas_create(s);
	if (!s->replicas)
		return false;
	s->limiter = limiter_create(s);
	s->recaller = recaller_create(s);
	s->watcher = s->limiter && s->recaller ? watcher_create(s) : NULL;
	if (!s->watcher)
		log_error("the worker cannot start");
	return s->watcher;
}

static void service_close(struct service *s)
{
	recaller_destroy(s->recaller);
	watcher_destroy(s->watcher);
	limiter_destroy(s->limiter);
	replicas_destroy(s->replicas);
	pool_destroy(s->pool);
	keymemo_destroy(s->memo);
	breakers_close(s->breakers);
	flights_close(s->flights);
	store_close(s->store);
	limits_close(s->limits);
	keycache_close(s->keys);
	published_close(s->published);
	region_close(s->region);
	watch_close(s->watch);
	exchange_free_spare(s);
	accesslog_close(s->log);
	catalog_unref(s->catalog);
	loop_destroy(s->loop);
}

/* --- FastCGI: between peers and exchanges --- */

static void on_finished(struct exchange *ex)
{
	peer_answer(ex->carrier, &ex->response);
}

/* The parameter stream as name-value pairs; what is not one makes the request malformed. */
static void feed_params(struct exchange *ex, struct view params)
{
	struct view name, value;
	bool broken = false;
	while (fastcgi_pair(&params, &name, &value, &broken))
		request_param(&ex->request, ex->arena, name, value);
	if (broken)
		ex->request.full = true;
}

static void on_request(void *context, struct peer *peer, struct view params)
{
	struct worker *w = context;
	struct exchange *ex = exchange_create(&w->service);
	peer_set_user(peer, ex);
	if (!ex) {
		peer_close(peer);
		return;
	}
	w->kept = peer_is_kept(peer);
	ex->carrier = peer;
	ex->finished = on_finished;
	if (params.p)
		feed_params(ex, params);
	else
		ex->request.full = true;
	exchange_start(ex);
}

static void on_body(void *context, struct peer *peer, struct view piece)
{
	(void)context;
	exchange_body(peer_user(peer), piece);
}

static void on_body_end(void *context, struct peer *peer)
{
	(void)context;
	exchange_body_end(peer_user(peer));
}

static void on_over(void *context, struct peer *peer)
{
	(void)context;
	struct exchange *ex = peer_user(peer);
	if (!ex)
		return;
	peer_set_user(peer, NULL);
	exchange_cancel(ex);
	exchange_release(ex);
}

/* In our slot the number is the others' to see. */
static void peers_count(struct worker *w, int more)
{
	w->n_peers = (unsigned)((int)w->n_peers + more);
	atomic_store_explicit(&region_slot(w->service.region)->connections, w->n_peers, memory_order_relaxed);
}

static void on_peer_closed(void *context, struct peer *peer)
{
	(void)peer;
	struct worker *w = context;
	peers_count(w, -1);
	if (w->leaving && w->n_peers == 0)
		loop_stop(w->service.loop);
}

/* --- accepting --- */

/* Not listening for a moment: the socket would be ready all the time. */
static void pause_accepting(struct worker *w, int64_t us)
{
	loop_io_stop(w->service.loop, &w->listener);
	loop_timer_set(w->service.loop, &w->accept_again, loop_now_us(w->service.loop) + us);
}

/* Not EPOLLEXCLUSIVE: who leaves a connection to another worker needs that one to be awake, and a worker that is killed
 * between being woken and accepting would leave the connection to nobody. What it costs where each request has a
 * connection of its own: 42 us of the workers' time for a 404 in place of 35. */
static bool listen_again(struct worker *w)
{
	return loop_io_start(w->service.loop, &w->listener, w->listening_fd, LOOP_READ, false) == 0;
}

static void on_accept_again(struct timer *t)
{
	struct worker *w = CONTAINER_OF(t, struct worker, accept_again);
	w->waited = true;
	if (!w->leaving && !listen_again(w))
		loop_timer_set(w->service.loop, t, loop_now_us(w->service.loop) + ACCEPT_PAUSE_US);
}

/* Does a live worker have fewer connections, by more than so many? Kept ones stay for long, so an uneven start would stay uneven; those that
 * are opened for each request come too often to be waited with, and even out by themselves. A slot of the dead is
 * cleared by the watcher within a second, and until then costs us the wait. */
static bool another_has_fewer(const struct worker *w, unsigned by_more_than)
{
	struct region *r = w->service.region;
	for (unsigned n = 0; n < REGION_SLOTS; n++) {
		struct slot *s = region_slot_at(r, n);
		if (s != region_slot(r) && atomic_load_explicit(&s->pid, memory_order_relaxed) &&
		    !atomic_load_explicit(&s->leaving, memory_order_relaxed) &&
		    atomic_load_explicit(&s->connections, memory_order_relaxed) + by_more_than < w->n_peers)
			return true;
	}
	return false;
}

/* Only nginx can be told without a race that a connection ends. It is, of each while leaving; else of one now and then
 * while another worker has fewer, since an uneven start would stay. Others use a connection that we close behind an
 * answer in 2 of 100 cases once more (Apache, on a busy machine), and that request fails: so we wait until they leave it
 * idle, and close only when that never comes. */
static bool on_last(void *context)
{
	struct worker *w = context;
	int64_t now = loop_now_us(w->service.loop);
	if (w->leaving)
		return w->peer_options.trailer || now >= w->leave_by_us;
	if (!w->peer_options.trailer || now < w->next_hand_over_us)
		return false;
	w->next_hand_over_us = now + HAND_OVER_US;
	return another_has_fewer(w, 1);
}

static void on_listener(struct io *io, unsigned events)
{
	(void)events;
	struct worker *w = CONTAINER_OF(io, struct worker, listener);
	for (int i = 0; i < ACCEPT_AT_ONCE; i++) {
		if (w->kept && !w->waited && another_has_fewer(w, 0)) {
			pause_accepting(w, LEAVE_TO_OTHERS_US);
			return;
		}
		w->waited = false;
		int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			if (peer_create(w->service.loop, fd, &w->owner, &w->peer_options))
				peers_count(w, 1);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			log_warn("a connection cannot be accepted: %s", strerror(errno));
			pause_accepting(w, ACCEPT_PAUSE_US);
		}
		return;
	}
}

/* --- leaving --- */

/* Accepts nothing more and goes on answering on the connections that it has: the web server may be about to use each
 * of them, and closes them itself when it no longer does, or each of them ends with its next answer (on_last()). */
static void leave(struct worker *w)
{
	if (w->leaving)
		return;
	w->leaving = true;
	w->leave_by_us = loop_now_us(w->service.loop) + LEAVE_US;
	atomic_store(&region_slot(w->service.region)->leaving, 1);
	loop_io_stop(w->service.loop, &w->listener);
	loop_timer_stop(w->service.loop, &w->accept_again);
	if (w->n_peers == 0)
		loop_stop(w->service.loop);
}

/* Somebody removed or replaced the shared files: a successor will use the new ones. */
static void on_orphaned(struct service *s)
{
	struct worker *w = CONTAINER_OF(s, struct worker, service);
	log_warn("the shared memory's file was replaced: leaving");
	leave(w);
}

static void on_signal(struct io *io, unsigned events)
{
	(void)events;
	struct worker *w = CONTAINER_OF(io, struct worker, signals);
	struct signalfd_siginfo info;
	if (read(io->fd, &info, sizeof info) != sizeof info)
		return;
	if (w->leaving && info.ssi_signo == SIGINT) {
		loop_stop(w->service.loop); /* asked twice, by a person */
		return;
	}
	leave(w);
}

static int signals_open(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	/* libfcgi has put a handler of its own here that only sets a flag of its own; blocked signals wait for us. */
	(void)signal(SIGTERM, SIG_DFL);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGUSR1, SIG_IGN); /* libfcgi's, see fastcgi_is_listening() */
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -1;
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

int worker_run(const struct settings *set, int listening_fd)
{
	struct worker w = {
		.listening_fd = listening_fd,
		.listener.ready = on_listener,
		.signals.ready = on_signal,
		.accept_again.fire = on_accept_again,
		.kept = true, /* until told otherwise */
		.owner = { on_request, on_body, on_body_end, on_over, on_over, on_peer_closed, &w },
		.peer_options = {
			.last = on_last,
			.trailer = strcmp(set->peer, "nginx") == 0,
			.params_max_bytes = (size_t)set->headers_max_bytes,
			.idle_us = set->idle_ms * 1000,
			.slowest_bytes_s = SLOWEST_BYTES_S,
		},
	};
	/* Not to grow with what was freed, as glibc's own does: an answer's memory goes back when the answer is through. */
	(void)mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
	int signals = signals_open();
	if (!service_open(&w.service, set))
		return EXIT_FAILURE;
	w.service.orphaned = on_orphaned;
	int flags = fcntl(listening_fd, F_GETFL);
	if (signals < 0 || flags < 0 || fcntl(listening_fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
	    loop_io_start(w.service.loop, &w.signals, signals, LOOP_READ, false) < 0 ||
	    !listen_again(&w)) {
		log_error("the listening socket cannot be watched: %s", strerror(errno));
		service_close(&w.service);
		return EXIT_FAILURE;
	}
	int failed = loop_run(w.service.loop);
	if (failed)
		log_error("the event loop failed: %s", strerror(errno));
	service_close(&w.service);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* --- plain CGI --- */

static void on_cgi_finished(struct exchange *ex)
{
	loop_stop(ex->service->loop);
}

int worker_cgi(const struct settings *set)
{
	struct service s;
	(void)signal(SIGPIPE, SIG_IGN);
	if (!service_open(&s, set))
		return EXIT_FAILURE;
	s.brief = true;
	struct exchange *ex = exchange_create(&s);
	if (!ex) {
		service_close(&s);
		return EXIT_FAILURE;
	}
	ex->finished = on_cgi_finished;
	cgi_params(&ex->request, ex->arena);
	/* The body first: there is no other request that could wait for it. A longer one than is taken is judged by its
	 * declared length. */
	const char *length = getenv("CONTENT_LENGTH");
	long long n = length && *length ? strtoll(length, NULL, 10) : 0;
	bool whole = true;
	if (n > 0 && n <= set->body_max_bytes)
		whole = cgi_body(STDIN_FILENO, (size_t)n, clock_us() + set->deadline_ms * 1000, &ex->body) == OK;
	ex->body_done = true;
	if (!whole)
		buf_clear(&ex->body); /* shorter than its Content-Length: refused by the pipeline */
	exchange_start(ex);
	if (!ex->ended)
		(void)loop_run(s.loop);
	int failed = ex->ended ? cgi_answer(STDOUT_FILENO, &ex->response) : -1;
	if (ex->ended)
		exchange_release(ex);
	service_close(&s);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* --- --check --- */

struct check {
	struct service service;
	struct timer look;
	int64_t until_us;
};

static void on_look(struct timer *t)
{
	struct check *c = CONTAINER_OF(t, struct check, look);
	int64_t now = loop_now_us(c->service.loop);
	if (c->service.catalog || now > c->until_us || !pool_reachable(c->service.pool, NULL) ||
	    !view_eq(watcher_why(c->service.watcher), VIEW("The catalog has not been read yet.")))
		loop_stop(c->service.loop);
	else
		loop_timer_set(c->service.loop, t, now + 5000);
}

int worker_check(const struct settings *set)
{
	struct check c = { .look.fire = on_look };
	log_init(LOG_LEVEL_ERROR);
	if (!service_open(&c.service, set))
		return EXIT_FAILURE;
	c.until_us = clock_us() + set->connect_timeout_ms * 1000 + 5000000;
	loop_timer_set(c.service.loop, &c.look, clock_us());
	(void)loop_run(c.service.loop);
	const struct catalog *cat = c.service.catalog;
	struct view why = watcher_why(c.service.watcher);
	if (cat)
		printf("composure: ready: catalog version %lld, %u resources\n", (long long)cat->version, cat->n_resources);
	else
		(void)fprintf(stderr, "composure: not ready: %.*s\n", VIEW_ARG(why));
	service_close(&c.service);
	return cat ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- --region --- */

int worker_region(const struct settings *set)
{
	char instance[17], why[256];
	instance_name(set, instance);
	const struct region_options options = {
		.folder = set->runtime_dir, .instance = instance, .store_bytes = (size_t)set->cache_bytes,
	};
	struct region *r = region_view(&options, why, sizeof why);
	if (!r) {
		(void)fprintf(stderr, "composure: no shared memory: %s\n", why);
		return EXIT_FAILURE;
	}
	struct watch *w = watch_view(set->runtime_dir, instance, why, sizeof why);
	struct published *p = published_open(r, AREA_CATALOG);
	struct keycache *k = w ? keycache_open(r, w, 0, 0) : NULL;
	struct store *st = store_open(r);
	region_describe(r, stdout);
	if (w)
		watch_describe(w, stdout);
	else
		printf("watch       %s\n", why);
	if (p)
		published_describe(p, stdout);
	if (k)
		keycache_describe(k, stdout);
	if (st)
		store_describe(st, stdout);
	struct breaker_terms server, terms;
	guard_terms(set, &server, &terms);
	struct breakers *b = breakers_open(r);
	if (b)
		breakers_describe(b, &terms, clock_us(), stdout);
	progress_describe(progress_open(r), stdout);
	breakers_close(b);
	store_close(st);
	keycache_close(k);
	published_close(p);
	watch_close(w);
	region_close(r);
	return EXIT_SUCCESS;
}
