#include "config.h"

#include "gate/limits.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/siphash.h"
#include "shm/lock.h"
#include "shm/point.h"
#include "shm/words.h"

enum {
	WAYS = 8,
	KEY_SETS = 1024,
	ADDRESS_SETS = 512,      /* of their own: whoever has many addresses pushes no key out */
	SETS = KEY_SETS + ADDRESS_SETS,
	FAILURE_SETS = 2048,
	WANTED = 1 << 20,        /* tokens: as many as lease() gives, which goes by the rate */
	AHEAD_FROM = 4,          /* leases of fewer tokens are not renewed ahead: those of slow buckets would only lie about */
	ASKING_US = 2500000,     /* who has not heard by then will not: longer than a worker waits */
	ASKING_LOOK_US = 50000,  /* from then on it is looked after whether he lives, which is a system call */
	UNUSED_US = 1500000,
	SHORTEST_US = 1000,      /* between two questions for a bucket that has nothing */
	TOLD_US = 1000000,       /* counts are told that often */
	FREE_TOLD_US = 10000000, /* whether there still is no limit is asked that often */
	PAUSE_US = 100000,       /* after the first failure to ask; doubled each time */
	PAUSE_MAX_US = 2000000,
	BLIND_RATE = 5,          /* tokens a second of an owner of whom nothing is known while PostgreSQL is away */
	BLIND_BURST = 10,
};

struct bucket {
	_Atomic uint64_t hash;   /* of the owner; 0: free */
	_Atomic int64_t tokens;  /* leased, unspent */
	_Atomic int64_t used_us; /* somebody wanted a token */
	_Atomic int64_t ask_us;  /* there is none to be had before */
	_Atomic int64_t asked_us;
	_Atomic int64_t told_us;
	_Atomic uint64_t asking; /* who is; 0: nobody */
	_Atomic uint32_t ask_for; /* so many tokens were asked for in vain: fewer may be there before ask_us; 0: none are */
	_Atomic uint32_t generation, known, has_terms, violated, granted;
	_Atomic uint32_t admitted, refused, debt; /* not yet told */
	_Atomic int64_t alone_of;             /* at_us of the terms that `alone` began with; -1: none */
	_Atomic int64_t alone[LIMIT_WINDOWS_MAX]; /* GCRA's theoretical arrival times */
	struct lock lock;                     /* of terms and version */
	_Atomic uint64_t version;             /* odd: they are being written */
	_Atomic uint64_t owner[LIMIT_OWNER_MAX / 8];
	_Atomic uint64_t terms[sizeof(struct limit_terms) / 8];
};

static_assert(sizeof(struct limit_terms) % 8 == 0, "they are copied in words");

struct failure {
	_Atomic uint64_t hash;
	_Atomic int64_t until_us; /* GCRA's theoretical arrival time */
};

struct table {
	_Atomic uint64_t host;         /* 0: not yet made */
	_Atomic uint64_t secret[SIPHASH_KEY_BYTES / 8]; /* of the hashes: nobody can choose whom to meet in a set */
	_Atomic int64_t closed_until_us;
	_Atomic uint32_t failures;     /* to ask, one after another */
	_Atomic uint32_t hosts;
	_Atomic uint64_t epoch[LIMIT_EPOCH_MAX / 8];
	struct lock set[SETS];         /* of making buckets in it */
	struct failure failure[FAILURE_SETS][WAYS];
	struct bucket bucket[SETS][WAYS];
};

struct limits {
	struct region *region;
	struct table *table;
	uint8_t secret[SIPHASH_KEY_BYTES];
	char host[LIMIT_HOST_CHARS + 1];
};

#define LOAD(at) atomic_load_explicit(&(at), memory_order_relaxed)
#define STORE(at, v) atomic_store_explicit(&(at), (v), memory_order_relaxed)

static void name_host(struct limits *l)
{
	/* Whoever attaches does so alone (region_ready()). */
	uint64_t made = LOAD(l->table->host), random[1 + SIPHASH_KEY_BYTES / 8];
	if (!made) {
		if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random || !random[0])
			random[0] = random[1] = (uint64_t)(uintptr_t)l ^ region_me(l->region);
		words_store(l->table->secret, random + 1, SIPHASH_KEY_BYTES);
		made = random[0];
		STORE(l->table->host, made);
	}
	(void)snprintf(l->host, sizeof l->host, "%016llx", (unsigned long long)made);
}

struct limits *limits_open(struct region *r)
{
	struct limits *l = calloc(1, sizeof *l);
	if (!l)
		return NULL;
	size_t bytes;
	l->region = r;
	l->table = region_area(r, AREA_LIMITS, &bytes);
	assert(bytes >= sizeof *l->table);
	if (region_repairing(r))
		(void)limits_repair(l);
	name_host(l);
	words_load(l->secret, l->table->secret, sizeof l->secret);
	return l;
}

void limits_close(struct limits *l)
{
	free(l);
}

struct view limits_host(const struct limits *l)
{
	return view_make(l->host, LIMIT_HOST_CHARS);
}

/* --- buckets --- */

/* Never 0. */
static uint64_t hash_of(const struct limits *l, struct view v)
{
	uint8_t hash[SIPHASH_BYTES];
	uint64_t h;
	siphash_of(l->secret, v, hash);
	memcpy(&h, hash, sizeof h);
	return h ? h : 1;
}

/* Keys and addresses in sets of their own. Each owner has two, the second for when whoever makes a bucket in the first is
 * stopped: a lock is not taken from one who lives. */
static size_t set_of(uint64_t hash, const char owner[LIMIT_OWNER_MAX], unsigned choice)
{
	uint64_t h = choice ? hash >> 32 : hash;
	return memchr(owner, '/', LIMIT_OWNER_MAX) ? KEY_SETS + h % ADDRESS_SETS : h % KEY_SETS;
}

static void padded(struct view owner, char out[LIMIT_OWNER_MAX])
{
	memset(out, 0, LIMIT_OWNER_MAX);
	memcpy(out, owner.p, owner.n < LIMIT_OWNER_MAX ? owner.n : LIMIT_OWNER_MAX - 1);
}

static bool owned_by(const struct bucket *b, const char owner[LIMIT_OWNER_MAX])
{
	char have[LIMIT_OWNER_MAX];
	words_load(have, b->owner, sizeof have);
	return memcmp(have, owner, sizeof have) == 0;
}

static struct bucket *look(struct table *t, size_t set, uint64_t hash, const char owner[LIMIT_OWNER_MAX])
{
	for (int i = 0; i < WAYS; i++) {
		struct bucket *b = &t->bucket[set][i];
		if (atomic_load_explicit(&b->hash, memory_order_acquire) == hash && owned_by(b, owner))
			return b;
	}
	return NULL;
}

static struct bucket *oldest(struct table *t, size_t set)
{
	struct bucket *victim = &t->bucket[set][0];
	for (int i = 1; i < WAYS; i++) {
		struct bucket *b = &t->bucket[set][i];
		if (LOAD(b->hash) == 0 || (LOAD(victim->hash) != 0 && LOAD(b->used_us) < LOAD(victim->used_us)))
			victim = b;
	}
	return victim;
}

/* What the one before had leased is lost to him: too few, never too many. */
static void make(struct bucket *b, uint64_t hash, const char owner[LIMIT_OWNER_MAX], int64_t now)
{
	STORE(b->hash, 0);
	atomic_thread_fence(memory_order_seq_cst);
	shm_point("bucket-claimed");
	STORE(b->tokens, 0);
	STORE(b->used_us, now);
	STORE(b->ask_us, 0);
	STORE(b->asked_us, 0);
	STORE(b->told_us, now);
	STORE(b->asking, 0);
	STORE(b->generation, 0);
	STORE(b->known, 0);
	STORE(b->has_terms, 0);
	STORE(b->violated, 0);
	STORE(b->granted, 0);
	STORE(b->admitted, 0);
	STORE(b->refused, 0);
	STORE(b->debt, 0);
	STORE(b->ask_for, 0);
	STORE(b->alone_of, -1);
	for (int i = 0; i < LIMIT_WINDOWS_MAX; i++)
		STORE(b->alone[i], 0);
	words_store(b->owner, owner, LIMIT_OWNER_MAX);
	atomic_store_explicit(&b->hash, hash, memory_order_release);
}

bool limits_find(struct limits *l, struct view owner, int64_t now_us, struct bucket_ref *ref)
{
	char key[LIMIT_OWNER_MAX];
	struct table *t = l->table;
	uint64_t hash = hash_of(l, owner);
	padded(owner, key);
	struct bucket *b = look(t, set_of(hash, key, 0), hash, key);
	if (!b)
		b = look(t, set_of(hash, key, 1), hash, key);
	for (unsigned choice = 0; !b && choice < 2; choice++) {
		size_t set = set_of(hash, key, choice);
		if (!lock_try(&t->set[set], region_me(l->region)))
			continue;
		b = look(t, set, hash, key);
		if (!b) {
			b = oldest(t, set);
			make(b, hash, key, now_us);
		}
		lock_release(&t->set[set]);
	}
	if (!b)
		return false;
	*ref = (struct bucket_ref){ b, hash };
	return true;
}

static bool still(const struct bucket_ref *ref)
{
	return atomic_load_explicit(&ref->bucket->hash, memory_order_acquire) == ref->hash;
}

bool limits_terms(const struct limits *l, const struct bucket_ref *ref, struct limit_terms *out)
{
	(void)l;
	const struct bucket *b = ref->bucket;
	uint64_t version = atomic_load_explicit(&b->version, memory_order_acquire);
	if ((version & 1) || !LOAD(b->has_terms))
		return false;
	words_load(out, b->terms, sizeof *out);
	atomic_thread_fence(memory_order_acquire);
	if (LOAD(b->version) != version || !still(ref) || out->n == 0 || out->n > LIMIT_WINDOWS_MAX)
		return false;
	out->policy[LIMIT_POLICY_MAX - 1] = '\0';
	return true;
}

static void store_terms(struct limits *l, struct bucket *b, const struct limit_terms *terms)
{
	if (!lock_try(&b->lock, region_me(l->region)))
		return; /* headers do without them, until somebody gets it */
	shm_point("terms-locked");
	uint64_t version = LOAD(b->version);
	STORE(b->version, version | 1);
	atomic_thread_fence(memory_order_release);
	words_store(b->terms, terms, sizeof *terms);
	shm_point("terms-written");
	STORE(b->has_terms, 1);
	atomic_store_explicit(&b->version, (version | 1) + 1, memory_order_release);
	lock_release(&b->lock);
}

double limits_left(const struct bucket_ref *ref, const struct limit_terms *terms, unsigned window, int64_t now_us)
{
	double tokens = (double)LOAD(ref->bucket->tokens);
	double left = terms->left[window] + terms->rate_us[window] * (double)(now_us > terms->at_us ? now_us - terms->at_us : 0);
	if (left > terms->burst[window])
		left = terms->burst[window];
	left = (left > 0 ? left : 0) + (tokens > 0 ? tokens : 0);
	return left > terms->burst[window] ? terms->burst[window] : left;
}

/* --- taking --- */

static bool spend(struct bucket *b, unsigned cost)
{
	int64_t tokens = LOAD(b->tokens);
	while (tokens >= (int64_t)cost)
		if (atomic_compare_exchange_weak_explicit(&b->tokens, &tokens, tokens - (int64_t)cost, memory_order_acq_rel,
		                                          memory_order_relaxed))
			return true;
	return false;
}

static enum take refused(struct bucket *b, int64_t wait_us, unsigned violated, struct taken *taken)
{
	(void)atomic_fetch_add_explicit(&b->refused, 1, memory_order_relaxed);
	taken->wait_us = wait_us;
	taken->violated = violated;
	return TAKE_REFUSED;
}

static enum take admitted(struct bucket *b)
{
	(void)atomic_fetch_add_explicit(&b->admitted, 1, memory_order_relaxed);
	return TAKE_ADMITTED;
}

enum take limits_take(struct limits *l, const struct bucket_ref *ref, unsigned cost, uint32_t generation, int64_t now_us,
                      struct taken *taken)
{
	(void)l;
	struct bucket *b = ref->bucket;
	*taken = (struct taken){ 0 };
	STORE(b->used_us, now_us);
	if (!still(ref) || !LOAD(b->known) || LOAD(b->generation) != generation)
		return TAKE_ASK;
	if (LOAD(b->known) == 2) { /* no limit */
		taken->low = now_us - LOAD(b->asked_us) > FREE_TOLD_US;
		return admitted(b);
	}
	if (spend(b, cost)) {
		if (!still(ref)) {
			/* It was another's: he has his token back. */
			(void)atomic_fetch_add(&b->tokens, (int64_t)cost);
			return TAKE_ASK;
		}
		uint32_t granted = LOAD(b->granted);
		taken->low = granted >= AHEAD_FROM && LOAD(b->tokens) < granted / 2 && now_us >= LOAD(b->ask_us);
		return admitted(b);
	}
	int64_t wait = LOAD(b->ask_us) - now_us;
	return wait > 0 && cost >= LOAD(b->ask_for) ? refused(b, wait, LOAD(b->violated), taken) : TAKE_ASK;
}

/* --- alone --- */

static void blind_terms(struct limit_terms *t)
{
	*t = (struct limit_terms){ .n = 1, .policy = "\"default\"" };
	t->rate_us[0] = BLIND_RATE / 1e6;
	t->burst[0] = t->left[0] = BLIND_BURST;
}

/* The theoretical arrival time of a window of which the host has its share of what is left, without what it has spent
 * already and not yet told. */
static int64_t arrival(const struct limit_terms *t, unsigned i, double share, uint32_t debt, int64_t now_us)
{
	double missing = (t->burst[i] - t->left[i]) * share + debt;
	return now_us + (int64_t)((missing > 0 ? missing : 0) / (t->rate_us[i] * share));
}

/* Never earlier than it was: several may begin at once, and with what a window has been used for before. */
static void not_before(_Atomic int64_t *at, int64_t us)
{
	int64_t was = LOAD(*at);
	while (was < us && !atomic_compare_exchange_weak_explicit(at, &was, us, memory_order_acq_rel, memory_order_relaxed))
		;
}

static bool alone_take(_Atomic int64_t *at, double rate_us, double burst, unsigned cost, int64_t now_us, int64_t *wait_us)
{
	int64_t each = (int64_t)((double)cost / rate_us), room = (int64_t)(burst / rate_us);
	int64_t was = LOAD(*at);
	for (;;) {
		int64_t next = (was > now_us ? was : now_us) + each;
		if (next - now_us > room) {
			*wait_us = next - now_us - room;
			return false;
		}
		if (atomic_compare_exchange_weak_explicit(at, &was, next, memory_order_acq_rel, memory_order_relaxed))
			return true;
	}
}

enum take limits_take_alone(struct limits *l, const struct bucket_ref *ref, unsigned cost, int64_t now_us, struct taken *taken)
{
	struct bucket *b = ref->bucket;
	struct limit_terms t;
	*taken = (struct taken){ 0 };
	STORE(b->used_us, now_us);
	if (LOAD(b->known) == 2 || spend(b, cost))
		return admitted(b);
	bool blind = !limits_terms(l, ref, &t);
	if (blind)
		blind_terms(&t);
	uint32_t hosts = LOAD(l->table->hosts);
	double share = 1.0 / (hosts ? hosts : 1);
	if (LOAD(b->alone_of) != t.at_us) {
		for (unsigned i = 0; i < t.n; i++)
			not_before(&b->alone[i], arrival(&t, i, share, LOAD(b->debt), now_us));
		atomic_store_explicit(&b->alone_of, t.at_us, memory_order_release);
	}
	for (unsigned i = 0; i < t.n; i++) {
		int64_t wait;
		if (alone_take(&b->alone[i], t.rate_us[i] * share, t.burst[i] * share, cost, now_us, &wait))
			continue;
		for (unsigned k = 0; k < i; k++)
			(void)atomic_fetch_sub(&b->alone[k], (int64_t)((double)cost / (t.rate_us[k] * share)));
		return refused(b, wait, blind ? 0 : 1u << i, taken);
	}
	(void)atomic_fetch_add_explicit(&b->debt, cost, memory_order_relaxed);
	return admitted(b);
}

/* --- asking --- */

/* Takes the word that says who asks: from nobody, from one who died, or who was stopped for so long. */
static bool take_asking(struct limits *l, struct bucket *b, int64_t now_us)
{
	uint64_t holder = LOAD(b->asking);
	int64_t since = now_us - LOAD(b->asked_us);
	if (holder && since < ASKING_US && (since < ASKING_LOOK_US || region_holder_alive(l->region, holder)))
		return false;
	STORE(b->asked_us, now_us); /* before: nobody is to find the word ours and the time another's */
	return atomic_compare_exchange_strong(&b->asking, &holder, region_me(l->region));
}

bool limits_asking(const struct limits *l, const struct bucket_ref *ref)
{
	return LOAD(ref->bucket->asking) == region_me(l->region);
}

static void fill(struct limit_ask *ask, struct bucket *b, uint64_t hash, uint32_t generation)
{
	*ask = (struct limit_ask){ .ref = { b, hash }, .generation = generation, .least = 1 };
	words_load(ask->owner, b->owner, sizeof ask->owner);
	ask->owner[LIMIT_OWNER_MAX - 1] = '\0';
}

static uint32_t all_tokens(struct bucket *b)
{
	int64_t tokens = atomic_exchange(&b->tokens, 0);
	return tokens > 0 ? (uint32_t)tokens : 0;
}

bool limits_ask(struct limits *l, const struct bucket_ref *ref, unsigned cost, uint32_t generation, int64_t now_us,
                struct limit_ask *ask)
{
	struct bucket *b = ref->bucket;
	if (!still(ref) || !take_asking(l, b, now_us))
		return false;
	shm_point("bucket-asking");
	fill(ask, b, ref->hash, generation);
	ask->wanted = cost > WANTED ? cost : WANTED;
	ask->least = cost ? cost : 1;
	return true;
}

void limits_count(struct limits *l, struct limit_ask *ask)
{
	(void)l;
	struct bucket *b = ask->ref.bucket;
	if (!still(&ask->ref))
		return;
	/* Leased under other terms: back with them. */
	if (LOAD(b->generation) != ask->generation)
		ask->returned += all_tokens(b);
	ask->admitted += atomic_exchange(&b->admitted, 0);
	ask->refused += atomic_exchange(&b->refused, 0);
	ask->debt += atomic_exchange(&b->debt, 0);
}

static void asked(struct limits *l, struct bucket *b)
{
	uint64_t me = region_me(l->region);
	(void)atomic_compare_exchange_strong(&b->asking, &me, 0);
}

void limits_leased(struct limits *l, const struct limit_ask *ask, uint32_t granted, int64_t wait_us, unsigned violated,
                   const struct limit_terms *terms, int64_t now_us)
{
	struct bucket *b = ask->ref.bucket;
	if (!still(&ask->ref))
		return; /* what was granted is lost */
	store_terms(l, b, terms);
	STORE(b->told_us, now_us);
	if (terms->n == 0) {
		STORE(b->known, 2);
	} else if (ask->wanted) {
		STORE(b->violated, violated);
		if (!granted && wait_us >= 0 && wait_us < SHORTEST_US)
			wait_us = SHORTEST_US;
		STORE(b->ask_for, granted ? 0 : ask->least);
		STORE(b->ask_us, wait_us > 0 ? now_us + wait_us : 0);
		if (granted)
			STORE(b->granted, granted);
		(void)atomic_fetch_add(&b->tokens, (int64_t)granted);
		STORE(b->known, 1);
	}
	atomic_store_explicit(&b->generation, ask->generation, memory_order_release);
	asked(l, b);
}

void limits_not_leased(struct limits *l, const struct limit_ask *ask, bool unknown)
{
	struct bucket *b = ask->ref.bucket;
	if (!still(&ask->ref))
		return;
	if (!unknown) {
		(void)atomic_fetch_add(&b->tokens, (int64_t)ask->returned);
		(void)atomic_fetch_add(&b->admitted, ask->admitted);
		(void)atomic_fetch_add(&b->refused, ask->refused);
	}
	(void)atomic_fetch_add(&b->debt, ask->debt);
	asked(l, b);
}

bool limits_idle(struct limits *l, unsigned *at, int64_t now_us, struct limit_ask *ask)
{
	for (; *at < SETS * WAYS; ++*at) {
		struct bucket *b = &l->table->bucket[*at / WAYS][*at % WAYS];
		uint64_t hash = LOAD(b->hash);
		bool unused = LOAD(b->tokens) > 0 && now_us - LOAD(b->used_us) > UNUSED_US;
		bool untold = (LOAD(b->admitted) || LOAD(b->refused) || LOAD(b->debt)) && now_us - LOAD(b->told_us) > TOLD_US;
		if (!hash || !(unused || untold) || !take_asking(l, b, now_us))
			continue;
		fill(ask, b, hash, LOAD(b->generation));
		if (unused)
			ask->returned = all_tokens(b);
		++*at;
		return true;
	}
	return false;
}

/* --- the way to PostgreSQL --- */

bool limits_may_ask(struct limits *l, int64_t now_us)
{
	struct table *t = l->table;
	if (!LOAD(t->failures))
		return true;
	int64_t until = LOAD(t->closed_until_us);
	return now_us >= until && atomic_compare_exchange_strong(&t->closed_until_us, &until, now_us + PAUSE_MAX_US);
}

void limits_reached(struct limits *l, struct view epoch, unsigned hosts)
{
	char text[LIMIT_EPOCH_MAX] = { 0 };
	memcpy(text, epoch.p, epoch.n < sizeof text ? epoch.n : sizeof text - 1);
	words_store(l->table->epoch, text, sizeof text);
	STORE(l->table->hosts, hosts);
	STORE(l->table->failures, 0);
}

void limits_failed(struct limits *l, int64_t now_us)
{
	struct table *t = l->table;
	uint32_t before = atomic_fetch_add(&t->failures, 1);
	int64_t pause = PAUSE_US;
	for (uint32_t i = 0; i < before && pause < PAUSE_MAX_US; i++)
		pause *= 2;
	if (pause > PAUSE_MAX_US)
		pause = PAUSE_MAX_US;
	STORE(t->closed_until_us, now_us + pause / 2 + random() % (pause / 2 + 1));
}

void limits_epoch(const struct limits *l, char *out)
{
	words_load(out, l->table->epoch, LIMIT_EPOCH_MAX);
	out[LIMIT_EPOCH_MAX - 1] = '\0';
}

/* --- failed authentication --- */

int64_t limits_failure(struct limits *l, struct view address, int64_t per_minute, int64_t now_us)
{
	uint64_t hash = hash_of(l, address);
	struct failure *set = l->table->failure[hash % FAILURE_SETS], *f = &set[0];
	for (int i = 0; i < WAYS; i++) {
		if (LOAD(set[i].hash) == hash) {
			f = &set[i];
			break;
		}
		if (LOAD(set[i].until_us) < LOAD(f->until_us))
			f = &set[i];
	}
	if (LOAD(f->hash) != hash) {
		STORE(f->until_us, 0);
		STORE(f->hash, hash);
	}
	int64_t wait = 0;
	(void)alone_take(&f->until_us, (double)per_minute / 60e6, (double)per_minute, 1, now_us, &wait);
	return wait;
}

/* --- after deaths --- */

unsigned limits_repair(struct limits *l)
{
	unsigned n = 0;
	for (size_t i = 0; i < SETS; i++) {
		if (!lock_take_over(&l->table->set[i], l->region))
			continue;
		for (int w = 0; w < WAYS; w++)
			STORE(l->table->bucket[i][w].hash, 0);
		lock_release(&l->table->set[i]);
		n++;
	}
	for (size_t i = 0; i < SETS * WAYS; i++) {
		struct bucket *b = &l->table->bucket[i / WAYS][i % WAYS];
		if (!lock_take_over(&b->lock, l->region))
			continue;
		STORE(b->known, 0);
		atomic_store_explicit(&b->version, (LOAD(b->version) | 1) + 1, memory_order_release);
		lock_release(&b->lock);
		n++;
	}
	return n;
}

void limits_describe(const struct limits *l, FILE *f)
{
	unsigned used = 0, held = 0;
	for (size_t i = 0; i < SETS; i++) {
		held += atomic_load(&l->table->set[i].holder) != 0;
		for (int w = 0; w < WAYS; w++) {
			used += atomic_load(&l->table->bucket[i][w].hash) != 0;
			held += atomic_load(&l->table->bucket[i][w].lock.holder) != 0;
		}
	}
	(void)fprintf(f, "limits      host %s, %u of %d buckets, locks held: %u, hosts: %u, failures to ask: %u\n", l->host, used,
	              SETS * WAYS, held, atomic_load(&l->table->hosts), atomic_load(&l->table->failures));
}
