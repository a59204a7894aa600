#include "config.h"

#include "http/timing.h"

enum {
	DIGITS_MAX = 17,
	WAITED_MAX_US = 600000000, /* which is the longest deadline, too */
	AHEAD_MAX_US = 60000000,
};

/* "2.5": a whole part and millionths. Takes what it read off *v. */
static bool decimal_of(struct view *v, int64_t *whole, int64_t *millionths)
{
	size_t i = 0;
	*whole = *millionths = 0;
	for (; i < v->n && i <= DIGITS_MAX && v->p[i] >= '0' && v->p[i] <= '9'; i++)
		*whole = *whole * 10 + (v->p[i] - '0');
	if (i == 0 || i > DIGITS_MAX)
		return false;
	if (i < v->n && v->p[i] == '.') {
		size_t point = i++;
		for (int64_t worth = 100000; i < v->n && v->p[i] >= '0' && v->p[i] <= '9'; i++, worth /= 10)
			*millionths += (v->p[i] - '0') * worth;
		if (i == point + 1)
			return false;
	}
	*v = view_skip(*v, i);
	return true;
}

bool timing_timeout(struct view v, int64_t *us)
{
	int64_t whole, millionths;
	v = view_trim(v);
	if (!decimal_of(&v, &whole, &millionths) || whole > 1000000000)
		return false;
	int64_t t = whole * 1000000 + millionths;
	if (view_eq(v, VIEW("ms")))
		t /= 1000;
	else if (v.n && !view_eq(v, VIEW("s")))
		return false;
	if (t <= 0)
		return false;
	*us = t;
	return true;
}

bool timing_waited(int64_t came_us, int64_t now_us, int64_t *us)
{
	int64_t waited_us = now_us - came_us;
	if (waited_us > WAITED_MAX_US || waited_us < -AHEAD_MAX_US)
		return false;
	*us = waited_us > 0 ? waited_us : 0;
	return true;
}

bool timing_instant(struct view v, int64_t *us)
{
	static const int64_t from = 1000000000, to = 10000000000; /* seconds */
	int64_t whole, millionths;
	v = view_trim(v);
	if (view_starts(v, VIEW("t=")))
		v = view_skip(v, 2);
	if (!decimal_of(&v, &whole, &millionths) || v.n)
		return false;
	int64_t t;
	if (whole >= from && whole < to)
		t = whole * 1000000 + millionths;
	else if (whole >= from * 1000 && whole < to * 1000)
		t = whole * 1000 + millionths / 1000;
	else if (whole >= from * 1000000 && whole < to * 1000000)
		t = whole;
	else
		return false;
	*us = t;
	return true;
}
