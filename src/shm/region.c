#include "config.h"

#include "shm/region.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sha256.h"
#include "shm/mapping.h"
#include "shm/point.h"

static const char MAGIC[8] = "cmpsrgn";

struct head {
	char magic[8];
	uint32_t layout, n_areas;
	uint64_t bytes;
	uint64_t offset[AREA_COUNT], size[AREA_COUNT];
	_Atomic uint32_t complete; /* areas were initialised once */
};

enum { HEAD_BYTES = 4096 };

static_assert(sizeof(struct head) <= HEAD_BYTES, "the head has its page");
static_assert(sizeof(struct slot) == 64, "a slot is a cache line");

static const size_t area_bytes[AREA_COUNT] = {
#define X(name, bytes) [AREA_##name] = (bytes),
	REGION_AREAS(X)
#undef X
};

static const char *const area_names[AREA_COUNT] = {
#define X(name, bytes) [AREA_##name] = #name,
	REGION_AREAS(X)
#undef X
};

struct region {
	struct head own;  /* as this build writes it for these options */
	struct mapping map;
	struct head *head;
	struct slot *slots;
	unsigned slot;    /* ours */
	uint32_t epoch;
	bool fresh;
	bool ready;       /* others may attach */
	char note[256];
};

static size_t page_up(size_t n)
{
	return (n + 4095) & ~(size_t)4095;
}

static size_t layout_of(struct head *h, size_t store_bytes)
{
	size_t at = HEAD_BYTES + page_up(sizeof(struct slot) * REGION_SLOTS);
	memcpy(h->magic, MAGIC, sizeof h->magic);
	h->layout = REGION_LAYOUT;
	h->n_areas = AREA_COUNT;
	for (int i = 0; i < AREA_COUNT; i++) {
		h->offset[i] = at;
		h->size[i] = area_bytes[i] + (i == AREA_STORE ? page_up(store_bytes) : 0);
		at += page_up(h->size[i]);
	}
	h->bytes = at;
	return at;
}

/* The head is as this build would write it, for a store of the size that the file leaves for it, and whoever wrote it came to
 * an end. (mapping.h asks with the size that is wanted.) */
static bool head_good(const void *memory, size_t bytes)
{
	const struct head *h = memory;
	struct head own = { .complete = 1 };
	size_t least = layout_of(&own, 0);
	return bytes >= least && layout_of(&own, bytes - least) == bytes && memcmp(h->magic, own.magic, sizeof own.magic) == 0 && h->layout == own.layout &&
	       h->n_areas == own.n_areas && h->bytes == own.bytes &&
	       memcmp(h->offset, own.offset, sizeof own.offset) == 0 && memcmp(h->size, own.size, sizeof own.size) == 0 &&
	       atomic_load(&h->complete) == 1;
}

static size_t read_small(const char *path, char *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, out, size);
	if (fd >= 0)
		close(fd);
	return n > 0 ? (size_t)n : 0;
}

void region_epoch_name(char out[REGION_EPOCH_CHARS])
{
	char text[256];
	size_t n = read_small("/proc/sys/kernel/random/boot_id", text, 64);
	ssize_t ns = readlink("/proc/self/ns/pid", text + n, sizeof text - n);
	uint8_t hash[SHA256_BYTES];
	sha256_of(view_make(text, n + (ns > 0 ? (size_t)ns : 0)), hash);
	for (int i = 0; i < (REGION_EPOCH_CHARS - 1) / 2; i++)
		(void)snprintf(out + 2 * i, 3, "%02x", hash[i]);
}

static int folder_and_name(const struct region_options *o, bool make, char name[128], char *why, int size)
{
	char epoch[REGION_EPOCH_CHARS];
	region_epoch_name(epoch);
	(void)snprintf(name, 128, "region-%d-%s-%s", REGION_LAYOUT, o->instance, epoch);
	return mapping_folder(o->folder, make, why, size);
}

static bool attach(struct region *r, const struct region_options *o, size_t bytes)
{
	char name[128];
	int dir = folder_and_name(o, true, name, r->note, sizeof r->note);
	if (dir < 0)
		return false;
	bool good = mapping_attach(&r->map, dir, name, bytes, head_good, r->note, sizeof r->note);
	close(dir);
	return good;
}

static bool slot_take(struct region *r)
{
	for (unsigned n = 0; n < REGION_SLOTS; n++) {
		if (!mapping_byte_take(&r->map, MAPPING_BYTE_SLOTS + (int)n))
			continue;
		shm_point("slot-locked");
		struct slot *s = &r->slots[n];
		r->slot = n;
		r->epoch = atomic_load(&s->epoch) + 1;
		atomic_store(&s->connections, 0);
		atomic_store(&s->leaving, 0);
		atomic_store(&s->pid, (uint32_t)getpid());
		atomic_store(&s->epoch, r->epoch);
		return true;
	}
	return false;
}

static void place(struct region *r)
{
	r->head = r->map.memory;
	r->slots = (struct slot *)(void *)((char *)r->map.memory + HEAD_BYTES);
	r->fresh = r->map.fresh;
	if (r->fresh)
		(void)layout_of(r->head, r->own.size[AREA_STORE]);
}

struct region *region_open(const struct region_options *o)
{
	struct region *r = calloc(1, sizeof *r);
	if (!r)
		return NULL;
	size_t bytes = layout_of(&r->own, o->store_bytes);
	bool shared = attach(r, o, bytes);
	if (shared) {
		place(r);
		shm_point("region-placed");
		if (slot_take(r))
			return r;
		(void)snprintf(r->note, sizeof r->note, "all %d worker slots are taken", REGION_SLOTS);
		mapping_detach(&r->map);
	}
	if (!mapping_private(&r->map, bytes)) {
		free(r);
		return NULL;
	}
	place(r);
	(void)slot_take(r);
	return r;
}

struct region *region_view(const struct region_options *o, char *why, int size)
{
	char name[128];
	struct region *r = calloc(1, sizeof *r);
	if (!r) {
		(void)snprintf(why, (size_t)size, "out of memory");
		return NULL;
	}
	size_t bytes = layout_of(&r->own, o->store_bytes);
	int dir = folder_and_name(o, false, name, why, size);
	bool good = dir >= 0 && mapping_view(&r->map, dir, name, bytes, why, size);
	if (dir >= 0)
		close(dir);
	if (good && !head_good(r->map.memory, bytes)) {
		(void)snprintf(why, (size_t)size, "%s is not complete", name);
		mapping_detach(&r->map);
		good = false;
	}
	if (!good) {
		free(r);
		return NULL;
	}
	place(r);
	r->slot = REGION_SLOTS; /* none */
	r->ready = true;
	return r;
}

void region_close(struct region *r)
{
	if (!r)
		return;
	if (r->slot < REGION_SLOTS)
		atomic_store(&r->slots[r->slot].pid, 0);
	mapping_detach(&r->map);
	free(r);
}

bool region_is_shared(const struct region *r)
{
	return r->map.fd >= 0;
}

struct view region_note(const struct region *r)
{
	return region_is_shared(r) ? VIEW("") : view_of(r->note);
}

void *region_area(struct region *r, enum region_area a, size_t *bytes)
{
	/* From this build's own sums, not from the file's. */
	*bytes = r->own.size[a];
	return (char *)r->map.memory + r->own.offset[a];
}

bool region_fresh(const struct region *r)
{
	return r->fresh;
}

bool region_alone(const struct region *r)
{
	return r->map.alone;
}

bool region_repairing(const struct region *r)
{
	return r->map.alone && !r->ready;
}

void region_ready(struct region *r)
{
	shm_point("region-ready");
	atomic_store(&r->head->complete, 1);
	r->ready = true;
	mapping_ready(&r->map);
}

struct slot *region_slot(struct region *r)
{
	return &r->slots[r->slot];
}

uint64_t region_me(const struct region *r)
{
	return (uint64_t)r->epoch << 16 | (r->slot + 1);
}

struct slot *region_slot_at(struct region *r, unsigned n)
{
	assert(n < REGION_SLOTS);
	return &r->slots[n];
}

bool region_slot_alive(struct region *r, unsigned n)
{
	return n == r->slot || mapping_byte_held(&r->map, MAPPING_BYTE_SLOTS + (int)n);
}

bool region_holder_alive(struct region *r, uint64_t holder)
{
	unsigned n = (unsigned)(holder & 0xffff) - 1;
	if (n >= REGION_SLOTS || atomic_load(&r->slots[n].epoch) != (uint32_t)(holder >> 16))
		return false;
	return region_slot_alive(r, n);
}

bool region_intact(const struct region *r)
{
	return mapping_intact(&r->map) && head_good(r->map.memory, r->map.bytes);
}

void region_describe(struct region *r, FILE *f)
{
	(void)fprintf(f, "layout      %d\nfile        %s\nbytes       %zu\n", REGION_LAYOUT,
	              region_is_shared(r) ? r->map.name : "(private memory)", r->map.bytes);
	if (!region_is_shared(r))
		(void)fprintf(f, "because     %s\n", r->note);
	for (int i = 0; i < AREA_COUNT; i++)
		(void)fprintf(f, "area        %-8s %zu bytes\n", area_names[i], (size_t)r->own.size[i]);
	for (unsigned n = 0; n < REGION_SLOTS; n++) {
		const struct slot *s = &r->slots[n];
		if (region_slot_alive(r, n))
			(void)fprintf(f, "worker      slot %u, pid %u, epoch %u, %u connections%s\n", n, atomic_load(&s->pid),
			              atomic_load(&s->epoch), atomic_load(&s->connections),
			              atomic_load(&s->leaving) ? ", leaving" : "");
	}
}
