/* The closed-loop client of the benchmark: one thread and one io_uring, so that
 * a message costs it no more than it costs the fastest server. Every connection
 * keeps DEPTH messages under way and sends the next when one has come back.
 *
 * usage: client PORT CONNECTIONS SIZE DEPTH WARMUP_MS COUNTED_MS
 *
 * Without arguments it only says whether it could run here. With them it
 * connects, writes the line "connected", begins when standard input has a line
 * or ends, and writes
 *
 *     MESSAGES TOTAL NANOSECONDS MISMATCHES
 *     MICROSECONDS MESSAGES      a line per latency that was seen
 *
 * where MESSAGES were echoed while it counted, TOTAL since it began, and
 * MISMATCHES are bytes that came back wrong. If SIZE times DEPTH is above
 * SMALL, seven connections in eight let the kernel discard what comes back,
 * which then is counted but not looked at: copying and comparing it would take
 * longer than the server needs. */
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SMALL = 4096, ENTRIES = 4096, SLOWEST = 1 << 22 };

struct conn {
	int sending;      /* a send is under way */
	int due;          /* messages to send when it has ended */
	int looks;        /* what comes back is compared */
	unsigned recv_at; /* position in the message that is coming back */
	unsigned oldest;  /* of sent_at */
	long *sent_at;    /* when each message under way was handed over, a ring */
};

static struct io_uring ring;
static struct io_uring_buf_ring *br;
static char *pool;            /* of the provided buffers */
static int buf_size, nbufs;
static int nconns, size, depth;
static struct conn *conns;
static char *burst;           /* DEPTH messages in a row */
static int counting;
static long messages, total, mismatches;
static long *latencies;       /* by microsecond */

static void fail(const char *what, int err)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(err));
	exit(1);
}

static long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static struct io_uring_sqe *sqe(void)
{
	struct io_uring_sqe *s = io_uring_get_sqe(&ring);
	if (!s) {
		io_uring_submit(&ring);
		s = io_uring_get_sqe(&ring);
	}
	return s;
}

static const unsigned long SEND = 1UL << 32;

static void start_recv(int i)
{
	struct io_uring_sqe *s = sqe();
	io_uring_prep_recv_multishot(s, i, NULL, 0, conns[i].looks ? 0 : MSG_TRUNC);
	s->flags |= IOSQE_BUFFER_SELECT | IOSQE_FIXED_FILE;
	s->buf_group = 0;
	io_uring_sqe_set_data64(s, i);
}

/* Sends what is due, unless a send is under way: two could mix their bytes. */
static void start_send(int i)
{
	struct conn *c = &conns[i];
	if (c->sending || !c->due)
		return;
	struct io_uring_sqe *s = sqe();
	io_uring_prep_send(s, i, burst, (size_t)c->due * size, MSG_WAITALL | MSG_NOSIGNAL);
	s->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data64(s, SEND | i);
	c->sending = c->due;
	c->due = 0;
}

static void compare(struct conn *c, const char *got, int n)
{
	int at = c->recv_at;
	while (n > 0) {
		int part = n < size - at ? n : size - at;
		if (memcmp(got, burst + at, part))
			for (int i = 0; i < part; i++)
				mismatches += got[i] != burst[at + i];
		got += part;
		n -= part;
		at = 0;
	}
}

/* Counts the messages that n more bytes complete, and sends as many. */
static void took(int i, int n, long t)
{
	struct conn *c = &conns[i];
	int complete = (c->recv_at + n) / size;
	c->recv_at = (c->recv_at + n) % size;
	total += complete;
	for (int k = 0; k < complete; k++) {
		if (counting) {
			long us = (t - c->sent_at[c->oldest]) / 1000;
			latencies[us < SLOWEST ? us : SLOWEST - 1]++;
			messages++;
		}
		c->sent_at[c->oldest] = t;
		c->oldest = (c->oldest + 1) % depth;
	}
	c->due += complete;
	start_send(i);
}

static void on_send(int i, int res)
{
	if (res != conns[i].sending * size) {
		fprintf(stderr, "load: connection %d: send: %s\n", i, res < 0 ? strerror(-res) : "the server has closed it");
		exit(1);
	}
	conns[i].sending = 0;
	start_send(i);
}

/* Returns the number of buffers given back, 0 or 1. */
static int on_recv(int i, const struct io_uring_cqe *e, int given, long t)
{
	int used = e->res > 0;
	if (used) {
		int id = e->flags >> IORING_CQE_BUFFER_SHIFT;
		char *b = pool + (size_t)id * buf_size;
		if (conns[i].looks)
			compare(&conns[i], b, e->res);
		io_uring_buf_ring_add(br, b, buf_size, id, nbufs - 1, given);
		took(i, e->res, t);
	} else if (e->res != -ENOBUFS) {
		fprintf(stderr, "load: connection %d: receive: %s\n", i, e->res ? strerror(-e->res) : "the server has closed it");
		exit(1);
	}
	if (!(e->flags & IORING_CQE_F_MORE))
		start_recv(i);
	return used;
}

static void init_ring(void)
{
	struct io_uring_params p = { .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE, .cq_entries = 32768 };
	int r = io_uring_queue_init_params(ENTRIES, &ring, &p);
	if (r)
		fail("io_uring_setup", -r);
	io_uring_register_ring_fd(&ring);
}

static void init_buffers(void)
{
	int small = size * depth <= SMALL;
	buf_size = small ? SMALL : 64 << 10;
	nbufs = small ? 1024 : 64;
	pool = mmap(NULL, (size_t)buf_size * nbufs, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	br = mmap(NULL, nbufs * sizeof(struct io_uring_buf), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pool == MAP_FAILED || br == MAP_FAILED)
		fail("mmap", errno);
	struct io_uring_buf_reg reg = { .ring_addr = (unsigned long)br, .ring_entries = nbufs };
	int r = io_uring_register_buf_ring(&ring, &reg, 0);
	if (r)
		fail("io_uring_register_buf_ring", -r);
	io_uring_buf_ring_init(br);
	for (int i = 0; i < nbufs; i++)
		io_uring_buf_ring_add(br, pool + (size_t)i * buf_size, buf_size, i, nbufs - 1, i);
	io_uring_buf_ring_advance(br, nbufs);
}

/* A byte of a message tells its position, so that a shifted echo is noticed. */
static void init_burst(void)
{
	burst = malloc((size_t)size * depth);
	for (int i = 0; i < size * depth; i++)
		burst[i] = i % size * 7 + (i % size >> 8);
}

static void connect_all(int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port) };
	int one = 1, *fds = calloc(nconns, sizeof *fds);
	conns = calloc(nconns, sizeof *conns);
	for (int i = 0; i < nconns; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM, 0);
		if (fds[i] < 0 || connect(fds[i], (struct sockaddr *)&a, sizeof a) || setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
			fail("connect", errno);
		conns[i].looks = size * depth <= SMALL || i % 8 == 0;
		conns[i].sent_at = calloc(depth, sizeof(long));
	}
	int r = io_uring_register_files(&ring, fds, nconns);
	if (r)
		fail("io_uring_register_files", -r);
	free(fds);
}

/* Handles what has completed; returns how long the messages were counted. */
static long run(long warmup, long counted)
{
	long t = now(), from = t + warmup, since = 0;
	for (int i = 0; i < nconns; i++) {
		start_recv(i);
		for (int k = 0; k < depth; k++)
			conns[i].sent_at[k] = t;
		conns[i].due = depth;
		start_send(i);
	}
	while (!counting || t < since + counted) {
		struct __kernel_timespec patience = { .tv_nsec = 100 * 1000 * 1000 };
		struct io_uring_cqe *e;
		unsigned head, n = 0;
		int given = 0;
		io_uring_submit_and_wait_timeout(&ring, &e, 1, &patience, NULL);
		t = now();
		if (!counting && t >= from) {
			counting = 1;
			since = t;
		}
		io_uring_for_each_cqe(&ring, head, e) {
			n++;
			if (e->user_data & SEND)
				on_send((int)e->user_data, e->res);
			else
				given += on_recv((int)e->user_data, e, given, t);
		}
		io_uring_buf_ring_advance(br, given);
		io_uring_cq_advance(&ring, n);
	}
	return t - since;
}

int main(int argc, char **argv)
{
	init_ring();
	if (argc == 1)
		return 0;
	if (argc != 7) {
		fprintf(stderr, "usage: client PORT CONNECTIONS SIZE DEPTH WARMUP_MS COUNTED_MS\n");
		return 2;
	}
	nconns = atoi(argv[2]);
	size = atoi(argv[3]);
	depth = atoi(argv[4]);
	latencies = calloc(SLOWEST, sizeof *latencies);
	init_buffers();
	init_burst();
	connect_all(atoi(argv[1]));
	puts("connected");
	fflush(stdout);
	getchar();
	long ns = run(atol(argv[5]) * 1000000, atol(argv[6]) * 1000000);
	printf("%ld %ld %ld %ld\n", messages, total, ns, mismatches);
	for (int us = 0; us < SLOWEST; us++)
		if (latencies[us])
			printf("%d %ld\n", us, latencies[us]);
	return 0;
}
