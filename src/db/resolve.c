/* The one hard fact: a thread inside getaddrinfo() cannot be stopped. So the job belongs to both sides, and whoever
 * lets go last frees it. */
#include "config.h"

#include "db/resolve.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"

enum { LIST_MAX = 8192 };

struct resolve {
	atomic_int holders; /* the loop's side and the thread's */
	int event;          /* readable when the thread is through */
	char *hosts, *ports;
	struct buf host, hostaddr, port; /* the thread's until event is readable */
	bool found;

	struct loop *loop;
	struct io io;
	void (*done)(void *, const char *, const char *, const char *);
	void *context;
};

static void release(struct resolve *r)
{
	if (atomic_fetch_sub(&r->holders, 1) > 1)
		return;
	close(r->event);
	buf_free(&r->host);
	buf_free(&r->hostaddr);
	buf_free(&r->port);
	free(r->hosts);
	free(r->ports);
	free(r);
}

static bool is_address(const char *host)
{
	unsigned char ignored[sizeof(struct in6_addr)];
	return inet_pton(AF_INET, host, ignored) == 1 || inet_pton(AF_INET6, host, ignored) == 1;
}

static bool is_socket(const char *host)
{
	return host[0] == '/' || host[0] == '@' || host[0] == '\0';
}

bool resolve_needed(const char *hosts)
{
	char *copy = hosts ? strdup(hosts) : NULL;
	bool needed = false;
	for (char *rest = copy, *host; rest && (host = strsep(&rest, ",")) != NULL;)
		needed |= !is_socket(host) && !is_address(host);
	free(copy);
	return needed;
}

static void list_add(struct resolve *r, const char *host, const char *addr, const char *port)
{
	if (r->found) {
		buf_putc(&r->host, ',');
		buf_putc(&r->hostaddr, ',');
		buf_putc(&r->port, ',');
	}
	buf_view_put(&r->host, view_of(host));
	buf_view_put(&r->hostaddr, view_of(addr));
	buf_view_put(&r->port, view_of(port));
	r->found = true;
}

static void look_up(struct resolve *r, const char *host, const char *port)
{
	if (is_socket(host)) {
		list_add(r, host, "", port);
		return;
	}
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *all = NULL;
	if (getaddrinfo(host, NULL, &hints, &all) != 0)
		return;
	for (const struct addrinfo *a = all; a; a = a->ai_next) {
		char text[INET6_ADDRSTRLEN];
		if (getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST) == 0)
			list_add(r, host, text, port);
	}
	freeaddrinfo(all);
}

/* One port for all hosts, or one for each (libpq's rule). */
static void *thread_main(void *arg)
{
	struct resolve *r = arg;
	char *port = r->ports;
	char *next_port = port ? strchr(port, ',') : NULL;
	for (char *rest = r->hosts, *host; (host = strsep(&rest, ",")) != NULL;) {
		if (next_port)
			*next_port = '\0';
		look_up(r, host, port ? port : "");
		if (next_port) {
			port = next_port + 1;
			next_port = strchr(port, ',');
		}
	}
	buf_putc(&r->host, '\0');
	buf_putc(&r->hostaddr, '\0');
	buf_putc(&r->port, '\0');
	if (buf_failed(&r->host) || buf_failed(&r->hostaddr) || buf_failed(&r->port))
		r->found = false;
	uint64_t one = 1;
	if (write(r->event, &one, sizeof one) != sizeof one)
		abort(); /* an eventfd takes 2^64 - 2 of these */
	release(r);
	return NULL;
}

static void on_ready(struct io *io, unsigned events)
{
	(void)events;
	struct resolve *r = CONTAINER_OF(io, struct resolve, io);
	loop_io_stop(r->loop, io);
	if (r->found)
		r->done(r->context, r->host.p, r->hostaddr.p, r->port.p);
	else
		r->done(r->context, NULL, NULL, NULL);
	release(r);
}

struct resolve *resolve_start(struct loop *loop, const char *hosts, const char *ports,
                              void (*done)(void *, const char *, const char *, const char *), void *context)
{
	struct resolve *r = calloc(1, sizeof *r);
	if (!r)
		return NULL;
	r->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->hosts = strdup(hosts);
	r->ports = ports ? strdup(ports) : NULL;
	r->host = r->hostaddr = r->port = BUF(LIST_MAX);
	r->loop = loop;
	r->io.ready = on_ready;
	r->done = done;
	r->context = context;
	atomic_init(&r->holders, 1);
	if (r->event < 0 || !r->hosts || (ports && !r->ports) ||
	    loop_io_start(loop, &r->io, r->event, LOOP_READ, false) < 0) {
		release(r);
		return NULL;
	}
	atomic_store(&r->holders, 2);
	pthread_t thread;
	pthread_attr_t detached;
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	int failed = pthread_create(&thread, &detached, thread_main, r);
	pthread_attr_destroy(&detached);
	if (failed) {
		atomic_store(&r->holders, 1);
		resolve_cancel(r);
		return NULL;
	}
	return r;
}

void resolve_cancel(struct resolve *r)
{
	if (!r)
		return;
	loop_io_stop(r->loop, &r->io);
	release(r);
}
