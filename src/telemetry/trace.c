#include "config.h"

#include "telemetry/trace.h"

#include <sys/random.h>
#include <time.h>
#include <unistd.h>

/* splitmix64 (Steele, Lea, Flood 2014): two of them make an id; the kernel's randomness seeds it once a process. No
 * process of ours forks and goes on without exec, so no two share a state. */
static uint64_t next_random(void)
{
	static uint64_t state;
	if (!state && getrandom(&state, sizeof state, GRND_NONBLOCK) != sizeof state) {
		struct timespec t;
		clock_gettime(CLOCK_REALTIME, &t);
		state = (uint64_t)t.tv_nsec * 1000003u + (uint64_t)getpid();
	}
	uint64_t z = state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

void request_id_make(char out[REQUEST_ID_CHARS])
{
	static const char hex[] = "0123456789abcdef";
	uint64_t high = (next_random() & ~(uint64_t)0xf000) | 0x4000;
	uint64_t low = (next_random() & ~((uint64_t)3 << 62)) | ((uint64_t)2 << 62);
	for (int i = 0, digit = 0; i < REQUEST_ID_CHARS; i++) {
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			out[i] = '-';
			continue;
		}
		uint64_t half = digit < 16 ? high : low;
		out[i] = hex[(half >> (60 - 4 * (digit % 16))) & 15];
		digit++;
	}
}

static bool is_hex(struct view v)
{
	bool zero = true;
	for (size_t i = 0; i < v.n; i++) {
		char c = v.p[i];
		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
			return false;
		zero &= c == '0';
	}
	return !zero;
}

struct view trace_id(struct view t)
{
	/* 00-<32 hex>-<16 hex>-<2 hex>; an id of zeros is not valid (section 3.2.2.3). */
	if (t.n != 55 || t.p[0] != '0' || t.p[1] != '0' || t.p[2] != '-' || t.p[35] != '-' || t.p[52] != '-')
		return VIEW_NONE;
	struct view id = view_make(t.p + 3, TRACE_ID_CHARS);
	return is_hex(id) && is_hex(view_make(t.p + 36, 16)) ? id : VIEW_NONE;
}
