#include "config.h"

#include "shm/watch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "shm/mapping.h"
#include "shm/point.h"
#include "shm/region.h"
#include "shm/words.h"

static const char MAGIC[8] = "cmpswch";

enum { CHAIN_WORDS = 480 };

/* Never to be changed: builds of all ages map it. What is new goes into `unused`. */
struct watch_file {
	char magic[8];
	uint64_t bytes;
	_Atomic uint64_t lease;     /* epoch in the high 24 bits, expiry in ms in the low 40 */
	_Atomic uint64_t heartbeat; /* ms */
	struct watch_counter all;
	_Atomic uint32_t complete;
	_Atomic uint32_t chain_bytes;
	_Atomic uint64_t chain_sum;
	_Atomic uint64_t chain[CHAIN_WORDS];
	char unused[4096 - 56 - 8 * CHAIN_WORDS];
	struct watch_counter tag[WATCH_TAGS];
};

static_assert(sizeof(struct watch_file) == 4096 + 8 * WATCH_TAGS, "the layout never changes");
static_assert(offsetof(struct watch_file, tag) == 4096, "the layout never changes");

struct watch {
	struct mapping map;
	struct watch_file *file;
	bool holding;     /* byte and lease are ours */
	bool has_byte;
	uint64_t epoch;   /* of our lease */
	char chain[8 * CHAIN_WORDS];
	char note[256];
};

static const uint64_t EXPIRY_MASK = ((uint64_t)1 << 40) - 1;

static int64_t clock_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint64_t lease_word(uint64_t epoch, int64_t expiry_ms)
{
	return epoch << 40 | ((uint64_t)expiry_ms & EXPIRY_MASK);
}

int64_t watch_clock_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool file_good(const void *memory, size_t bytes)
{
	const struct watch_file *f = memory;
	return memcmp(f->magic, MAGIC, sizeof f->magic) == 0 && f->bytes == bytes && atomic_load(&f->complete) == 1;
}

static int folder_and_name(const char *folder, const char *instance, bool make, char name[128], char *why, int size)
{
	char epoch[REGION_EPOCH_CHARS];
	region_epoch_name(epoch);
	(void)snprintf(name, 128, "watch-%s-%s", instance, epoch);
	return mapping_folder(folder, make, why, size);
}

static bool attach(struct watch *w, const char *folder, const char *instance)
{
	char name[128];
	int dir = folder_and_name(folder, instance, true, name, w->note, sizeof w->note);
	if (dir < 0)
		return false;
	bool good = mapping_attach(&w->map, dir, name, sizeof *w->file, file_good, w->note, sizeof w->note);
	close(dir);
	return good;
}

static void initialise(struct watch_file *f)
{
	uint64_t start;
	memcpy(f->magic, MAGIC, sizeof f->magic);
	f->bytes = sizeof *f;
	if (getrandom(&start, sizeof start, GRND_NONBLOCK) != (ssize_t)sizeof start)
		start = (uint64_t)clock_ns() * 0x9e3779b97f4a7c15u;
	atomic_store(&f->all.both, start);
	shm_point("watch-begun");
	atomic_store(&f->complete, 1);
}

struct watch *watch_open(const char *folder, const char *instance)
{
	struct watch *w = calloc(1, sizeof *w);
	if (!w)
		return NULL;
	if (!attach(w, folder, instance) && !mapping_private(&w->map, sizeof *w->file)) {
		free(w);
		return NULL;
	}
	w->file = w->map.memory;
	if (w->map.fresh)
		initialise(w->file);
	mapping_ready(&w->map);
	return w;
}

struct watch *watch_view(const char *folder, const char *instance, char *why, int size)
{
	char name[128];
	struct watch *w = calloc(1, sizeof *w);
	int dir = w ? folder_and_name(folder, instance, false, name, why, size) : -1;
	bool good = dir >= 0 && mapping_view(&w->map, dir, name, sizeof *w->file, why, size);
	if (dir >= 0)
		close(dir);
	if (good && !file_good(w->map.memory, w->map.bytes)) {
		(void)snprintf(why, (size_t)size, "%s is not complete", name);
		mapping_detach(&w->map);
		good = false;
	}
	if (!good) {
		free(w);
		return NULL;
	}
	w->file = w->map.memory;
	return w;
}

void watch_close(struct watch *w)
{
	if (!w)
		return;
	watch_give_up(w);
	mapping_detach(&w->map);
	free(w);
}

bool watch_is_shared(const struct watch *w)
{
	return w->map.fd >= 0;
}

struct view watch_note(const struct watch *w)
{
	return watch_is_shared(w) ? VIEW("") : view_of(w->note);
}

bool watch_intact(const struct watch *w)
{
	return mapping_intact(&w->map) && file_good(w->file, w->map.bytes);
}

/* --- the lease --- */

static bool renew(struct watch *w, uint64_t word, int64_t now_ms)
{
	uint64_t next = lease_word(w->epoch, now_ms + WATCH_LEASE_MS);
	if (word >> 40 == w->epoch && atomic_compare_exchange_strong(&w->file->lease, &word, next)) {
		/* Taken from one that was stopped, who has let go of the byte meanwhile: without it we would be taken for dead. */
		if (!w->has_byte)
			w->has_byte = mapping_byte_take(&w->map, MAPPING_BYTE_WATCH);
		return true;
	}
	/* Somebody took it while we were stopped. */
	w->holding = false;
	if (w->has_byte)
		mapping_byte_give(&w->map, MAPPING_BYTE_WATCH);
	w->has_byte = false;
	return false;
}

bool watch_hold(struct watch *w, int64_t now_ms)
{
	uint64_t word = atomic_load(&w->file->lease);
	if (w->holding)
		return renew(w, word, now_ms);
	int64_t expiry = (int64_t)(word & EXPIRY_MASK);
	bool expired = now_ms >= expiry || expiry > now_ms + 2 * WATCH_LEASE_MS; /* the latter: not of this boot */
	/* The byte of a holder that died is free; of one that is stopped it is not, and only time tells. */
	w->has_byte = mapping_byte_take(&w->map, MAPPING_BYTE_WATCH);
	if (!w->has_byte && !expired)
		return false;
	shm_point("watch-taking");
	w->epoch = ((word >> 40) + 1) & 0xffffff;
	if (!atomic_compare_exchange_strong(&w->file->lease, &word, lease_word(w->epoch, now_ms + WATCH_LEASE_MS))) {
		if (w->has_byte)
			mapping_byte_give(&w->map, MAPPING_BYTE_WATCH);
		w->has_byte = false;
		return false;
	}
	shm_point("watch-taken");
	w->holding = true;
	return true;
}

void watch_give_up(struct watch *w)
{
	if (!w->holding)
		return;
	uint64_t word = atomic_load(&w->file->lease);
	if (word >> 40 == w->epoch)
		(void)atomic_compare_exchange_strong(&w->file->lease, &word, lease_word(w->epoch, 0));
	if (w->has_byte)
		mapping_byte_give(&w->map, MAPPING_BYTE_WATCH);
	w->holding = w->has_byte = false;
}

void watch_beat(struct watch *w, int64_t polled_ms)
{
	atomic_store_explicit(&w->file->heartbeat, (uint64_t)polled_ms, memory_order_release);
}

int64_t watch_heartbeat_ms(const struct watch *w)
{
	return (int64_t)atomic_load_explicit(&w->file->heartbeat, memory_order_acquire);
}

/* Two may write at once, one of them stopped for long: what is of both has another sum. FNV-1a. */
static uint64_t sum_of(const char *p, size_t n)
{
	uint64_t h = 0xcbf29ce484222325u ^ n;
	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)p[i]) * 0x100000001b3u;
	return h;
}

void watch_keep_chain(struct watch *w, struct view text)
{
	if (text.n > sizeof w->chain)
		text = VIEW_NONE;
	size_t words = (text.n + 7) / 8;
	memset(w->chain, 0, sizeof w->chain);
	if (text.n)
		memcpy(w->chain, text.p, text.n);
	atomic_store_explicit(&w->file->chain_bytes, (uint32_t)text.n, memory_order_relaxed);
	words_store(w->file->chain, w->chain, words * 8);
	atomic_store_explicit(&w->file->chain_sum, sum_of(w->chain, text.n), memory_order_release);
}

struct view watch_chain(struct watch *w)
{
	uint64_t sum = atomic_load_explicit(&w->file->chain_sum, memory_order_acquire);
	uint32_t n = atomic_load_explicit(&w->file->chain_bytes, memory_order_relaxed);
	if (n == 0 || n > sizeof w->chain)
		return VIEW_NONE;
	words_load(w->chain, w->file->chain, (n + 7) / 8 * 8);
	return sum_of(w->chain, n) == sum ? view_make(w->chain, n) : VIEW_NONE;
}

struct watch_counter *watch_counter(const struct watch *w, uint32_t n)
{
	return &w->file->tag[n & (WATCH_TAGS - 1)];
}

struct watch_counter *watch_counter_all(const struct watch *w)
{
	return &w->file->all;
}

void watch_describe(const struct watch *w, FILE *f)
{
	uint64_t word = atomic_load(&w->file->lease);
	int64_t now = watch_clock_ms(), beat = watch_heartbeat_ms(w);
	(void)fprintf(f, "watch       %s, lease epoch %llu, ends in %lld ms\n",
	              watch_is_shared(w) ? w->map.name : w->note, (unsigned long long)(word >> 40),
	              (long long)((int64_t)(word & EXPIRY_MASK) - now));
	(void)fprintf(f, "watcher     %s\n", mapping_byte_held(&w->map, MAPPING_BYTE_WATCH) ? "alive" : "none");
	if (beat)
		(void)fprintf(f, "heartbeat   %lld ms ago\n", (long long)(now - beat));
	else
		(void)fprintf(f, "heartbeat   none yet\n");
}
