/* feed_follow: follows the change feed of a database and writes a line for each thing that it is told.
 *
 *     feed_follow [--pooled] [--interval-us N] [--retention-us N] [--connections N] DSN
 *
 * A line begins with the time (CLOCK_MONOTONIC, microseconds):
 *
 *     changed RESOURCE KEY...      without a key: all of it; keys are written as they are
 *     everything WHY
 *     polled MICROSECONDS          that have gone by since the poll was asked for
 *     failed CODE WHY
 *     stopped
 *
 * Lines come out poll by poll. SIGUSR1 stops the feed, SIGUSR2 starts it; SIGTERM ends, with status 0.
 */
#include "config.h"

#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "db/feed.h"

struct follower {
	struct loop *loop;
	struct feed *feed;
	struct io signals;
};

static void line(const char *fmt, ...) PRINTF_LIKE(1, 2);

static void line(const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	printf("%lld ", (long long)clock_us());
	vprintf(fmt, args);
	putchar('\n');
	va_end(args);
}

static void changed(void *context, struct view resource, const struct view *keys, unsigned n_keys, bool hard)
{
	(void)hard;
	(void)context;
	printf("%lld changed %.*s", (long long)clock_us(), VIEW_ARG(resource));
	for (unsigned i = 0; i < n_keys; i++)
		printf(" %.*s", VIEW_ARG(keys[i]));
	putchar('\n');
}

static void everything(void *context, struct view why, bool hard)
{
	(void)hard;
	(void)context;
	line("everything %.*s", VIEW_ARG(why));
	fflush(stdout);
}

static void telling(void *context, uint64_t lsn, int64_t asked_us)
{
	(void)context, (void)lsn, (void)asked_us;
}

static void polled(void *context, int64_t asked_us, uint64_t lsn)
{
	(void)lsn;
	(void)context;
	line("polled %lld", (long long)(clock_us() - asked_us));
	fflush(stdout);
}

static void failed(void *context, enum status status, struct view why)
{
	(void)context;
	line("failed %s %.*s", status_code(status), VIEW_ARG(why));
	fflush(stdout);
}

static void on_signal(struct io *io, unsigned events)
{
	struct follower *f = CONTAINER_OF(io, struct follower, signals);
	struct signalfd_siginfo info;
	(void)events;
	if (read(io->fd, &info, sizeof info) != (ssize_t)sizeof info)
		return;
	if (info.ssi_signo == SIGUSR1) {
		feed_stop(f->feed);
		line("stopped");
		fflush(stdout);
	} else if (info.ssi_signo == SIGUSR2) {
		feed_start(f->feed);
	} else {
		loop_stop(f->loop);
	}
}

static int usage(void)
{
	fputs("usage: feed_follow [--pooled] [--interval-us N] [--retention-us N] [--connections N] DSN\n", stderr);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option known[] = {
		{ "pooled", no_argument, NULL, 'p' },
		{ "interval-us", required_argument, NULL, 'i' },
		{ "retention-us", required_argument, NULL, 'r' },
		{ "connections", required_argument, NULL, 'c' },
		{ NULL, 0, NULL, 0 },
	};
	struct feed_options options = { .interval_us = 0 };
	struct pool_options pool_options = { .connections = 2, .share_segments = true };
	pool_options.conn.connect_timeout_us = 10000000;
	for (int o; (o = getopt_long(argc, argv, "", known, NULL)) != -1;) {
		if (o == 'p')
			pool_options.conn.pooled = true;
		else if (o == 'i')
			options.interval_us = atoll(optarg);
		else if (o == 'r')
			options.retention_us = atoll(optarg);
		else if (o == 'c')
			pool_options.connections = (unsigned)atoi(optarg);
		else
			return usage();
	}
	if (optind + 1 != argc)
		return usage();
	pool_options.conn.dsn = argv[optind];

	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);

	struct follower f = { .loop = loop_create() };
	struct pool *pool = f.loop ? pool_create(f.loop, &pool_options) : NULL;
	struct feed_owner owner = { changed, everything, telling, polled, failed, &f };
	f.feed = pool ? feed_create(f.loop, pool, &options, &owner) : NULL;
	f.signals.ready = on_signal;
	if (!f.feed || loop_io_start(f.loop, &f.signals, signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), LOOP_READ, false)) {
		perror("feed_follow");
		return 1;
	}
	feed_start(f.feed);
	int ended = loop_run(f.loop);
	int fd = f.signals.fd;
	loop_io_stop(f.loop, &f.signals);
	close(fd);
	feed_destroy(f.feed);
	pool_destroy(pool);
	loop_destroy(f.loop);
	return ended ? 1 : 0;
}
