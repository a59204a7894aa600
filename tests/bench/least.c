#include "config.h"

#include "least.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BEGIN = 1, ABORT = 2, END = 3, PARAMS = 4, STDIN = 5, STDOUT = 6, HEADER = 8, BATCH = 256 };

static const struct least *user;
static int epoll_fd = -1;
static bool stopped;
static struct peer *closed; /* freed at the end of the wake-up: an event of theirs may still be in its batch */

void least_fail(const char *what, const char *why)
{
	(void)fprintf(stderr, "%s: %s\n", what, why);
	exit(EXIT_FAILURE);
}

static void watch(struct watched *w, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };
	if (epoll_fd < 0)
		epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, w->fd, &ev) < 0)
		least_fail("epoll_ctl", strerror(errno));
}

void least_watch(struct watched *w)
{
	watch(w, EPOLLIN);
}

/* --- a peer --- */

static void free_later(struct peer *p)
{
	p->next = closed;
	closed = p;
}

static void gone(struct peer *p)
{
	close(p->watched.fd);
	p->watched.fd = -1;
	p->gone = true;
	if (!p->running)
		free_later(p);
}

/* version, type, id, length, padding, 0 */
static char *put_header(char *at, int type, unsigned id, size_t n)
{
	const unsigned char header[HEADER] = {
		1, (unsigned char)type, (unsigned char)(id >> 8), (unsigned char)id, (unsigned char)(n >> 8), (unsigned char)n,
	};
	memcpy(at, header, sizeof header);
	return at + sizeof header;
}

char *least_head(char *at, size_t n_body, bool page)
{
	static const char LINK[] = "Link: </api/users?limit=50>; rel=\"first\","
				   " </api/users?limit=50&cursor=eyJpZCI6NTAwMDEsIiI6IjwifQ>; rel=\"prev\","
				   " </api/users?limit=50&cursor=eyJpZCI6NTAwNTB9>; rel=\"next\"";
	static const char ETAG[] = "ETag: \"00000000000000000000000000000000\"";
	return at + sprintf(at,
			    "Status: 200 OK\r\n"
			    "Content-Type: application/json\r\n"
			    "Cache-Control: private, no-cache\r\n"
			    "Vary: Accept, Authorization, X-API-Key\r\n"
			    "%s\r\n"
			    "X-Request-Id: 00000000-0000-4000-8000-000000000000\r\n"
			    "X-Content-Type-Options: nosniff\r\n"
			    "Content-Security-Policy: default-src 'none'\r\n"
			    "Content-Length: %zu\r\n\r\n",
			    page ? LINK : ETAG, n_body);
}

void least_answer(struct peer *p, char *record, size_t n)
{
	p->running = false;
	if (p->gone) {
		free_later(p);
		return;
	}
	put_header(record, STDOUT, p->id, n);
	char *end = put_header(record + HEADER + n, STDOUT, p->id, 0);
	end = put_header(end, END, p->id, 8);
	memset(end, 0, 8);
	size_t all = (size_t)(end + 8 - record);
	if (send(p->watched.fd, record, all, MSG_NOSIGNAL) != (ssize_t)all || !p->keep)
		gone(p);
}

/* The records that are there; true when they are a whole request. */
static bool take_records(struct peer *p, const char **params, size_t *n_params)
{
	*n_params = 0;
	for (size_t at = 0; p->n_in - at >= HEADER;) {
		const unsigned char *h = (const unsigned char *)p->in + at;
		size_t n = (size_t)h[4] << 8 | h[5], whole = HEADER + n + h[6];
		if (p->n_in - at < whole)
			return false;
		if (h[1] == BEGIN) {
			p->id = (uint16_t)(h[2] << 8 | h[3]);
			p->keep = h[HEADER + 2] & 1;
		} else if (h[1] == PARAMS && n) {
			*params = (const char *)h + HEADER;
			*n_params = n;
		} else if (h[1] == STDIN && !n) {
			return true;
		}
		at += whole;
	}
	return false;
}

static void on_peer(struct watched *w)
{
	struct peer *p = (struct peer *)(void *)w;
	if (p->gone)
		return;
	ssize_t n = recv(w->fd, p->in + p->n_in, sizeof p->in - p->n_in, 0);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0 || p->running) {
		gone(p);
		return;
	}
	p->n_in += (size_t)n;
	const char *params = NULL;
	size_t n_params;
	if (!take_records(p, &params, &n_params))
		return;
	p->n_in = 0;
	p->running = true;
	user->request(p, params, n_params);
}

static void on_listener(struct watched *w)
{
	int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return;
	struct peer *p = malloc(sizeof *p);
	if (!p)
		least_fail("malloc", "out of memory");
	p->watched = (struct watched){ on_peer, fd };
	p->gone = p->running = p->keep = false;
	p->n_in = 0;
	least_watch(&p->watched);
}

static void on_signal(struct watched *w)
{
	(void)w;
	stopped = true;
}

/* --- the loop --- */

int least_run(const struct least *given)
{
	static struct watched listener = { on_listener, STDIN_FILENO }, signals = { on_signal, -1 };
	sigset_t set;
	user = given;
	(void)fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals.fd = signalfd(-1, &set, SFD_CLOEXEC);
	least_watch(&signals);
	watch(&listener, EPOLLIN | EPOLLEXCLUSIVE);
	struct epoll_event batch[BATCH];
	while (!stopped) {
		int n = epoll_wait(epoll_fd, batch, BATCH, -1);
		for (int i = 0; i < n; i++) {
			struct watched *w = batch[i].data.ptr;
			w->ready(w);
		}
		if (user->flush)
			user->flush();
		while (closed) {
			struct peer *p = closed;
			closed = p->next;
			free(p);
		}
	}
	return EXIT_SUCCESS;
}
