/* The closed-loop client of the benchmark for packets: one thread, epoll, and one
 * system call for all packets of a socket. Every socket keeps DEPTH messages under
 * way and sends the next when one has come back.
 *
 * usage: packets PORT SOCKETS SIZE DEPTH WARMUP_MS COUNTED_MS
 *
 * It is used as the client for connections is, and writes the same; see client.c.
 * A packet that is lost fails the run: nothing would be sent in its place. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, LARGEST = 65536, SLOWEST = 1 << 22, PATIENCE_MS = 2000 };

struct sock {
	int fd;
	unsigned oldest; /* of sent_at */
	long *sent_at;   /* when each message under way was sent, a ring */
};

static int nsocks, size, depth, ep;
static struct sock *socks;
static char message[LARGEST], room[BATCH][LARGEST];
static struct mmsghdr in[BATCH], out[BATCH];
static struct iovec in_at[BATCH], out_at;
static int counting;
static long messages, total, mismatches;
static long *latencies; /* by microsecond */

static void fail(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

/* A byte of a message tells its position. */
static void init_messages(void)
{
	for (int i = 0; i < size; i++)
		message[i] = i * 7 + (i >> 8);
	out_at = (struct iovec){ message, size };
	for (int i = 0; i < BATCH; i++) {
		in_at[i] = (struct iovec){ room[i], LARGEST };
		in[i].msg_hdr.msg_iov = &in_at[i];
		out[i].msg_hdr.msg_iov = &out_at;
		in[i].msg_hdr.msg_iovlen = out[i].msg_hdr.msg_iovlen = 1;
	}
}

static void connect_all(int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port) };
	ep = epoll_create1(0);
	socks = calloc(nsocks, sizeof *socks);
	for (int i = 0; i < nsocks; i++) {
		struct epoll_event e = { .events = EPOLLIN, .data.u32 = i };
		struct sock *s = &socks[i];
		s->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
		s->sent_at = calloc(depth, sizeof(long));
		if (s->fd < 0 || connect(s->fd, (struct sockaddr *)&a, sizeof a) || epoll_ctl(ep, EPOLL_CTL_ADD, s->fd, &e))
			fail("connect");
	}
}

static void send_some(struct sock *s, int n)
{
	for (int sent = 0; sent < n;) {
		int want = n - sent < BATCH ? n - sent : BATCH;
		int r = sendmmsg(s->fd, out, want, 0);
		if (r <= 0)
			fail("send");
		sent += r;
	}
}

static void took(struct sock *s, int i, long t)
{
	if ((int)in[i].msg_len != size || memcmp(room[i], message, size))
		mismatches++;
	total++;
	if (counting) {
		long us = (t - s->sent_at[s->oldest]) / 1000;
		latencies[us < SLOWEST ? us : SLOWEST - 1]++;
		messages++;
	}
	s->sent_at[s->oldest] = t;
	s->oldest = (s->oldest + 1) % depth;
}

static void on_ready(struct sock *s, long t)
{
	int n = recvmmsg(s->fd, in, BATCH, MSG_DONTWAIT, NULL);
	if (n < 0) {
		if (errno == EAGAIN)
			return;
		fail("receive");
	}
	for (int i = 0; i < n; i++)
		took(s, i, t);
	send_some(s, n);
}

/* Handles what arrives; returns how long the messages were counted. */
static long run(long warmup, long counted)
{
	long t = now(), from = t + warmup, since = 0;
	for (int i = 0; i < nsocks; i++) {
		for (int k = 0; k < depth; k++)
			socks[i].sent_at[k] = t;
		send_some(&socks[i], depth);
	}
	while (!counting || t < since + counted) {
		struct epoll_event events[256];
		int n = epoll_wait(ep, events, 256, PATIENCE_MS);
		t = now();
		if (!counting && t >= from) {
			counting = 1;
			since = t;
		}
		if (n == 0) {
			fprintf(stderr, "load: packets are lost: nothing came back for %d ms\n", PATIENCE_MS);
			exit(1);
		}
		for (int i = 0; i < n; i++)
			on_ready(&socks[events[i].data.u32], t);
	}
	return t - since;
}

int main(int argc, char **argv)
{
	if (argc == 1)
		return 0;
	if (argc != 7) {
		fprintf(stderr, "usage: packets PORT SOCKETS SIZE DEPTH WARMUP_MS COUNTED_MS\n");
		return 2;
	}
	nsocks = atoi(argv[2]);
	size = atoi(argv[3]);
	depth = atoi(argv[4]);
	latencies = calloc(SLOWEST, sizeof *latencies);
	init_messages();
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
