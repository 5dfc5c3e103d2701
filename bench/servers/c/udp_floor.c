/* A bare echo server for packets, the floor of that comparison: one thread, and a
 * system call for every BATCH packets.
 *
 * usage: udp_floor PORT BATCH
 *
 * With a BATCH of 1 it calls recvfrom and sendto, else recvmmsg and sendmmsg. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { MOST = 64, LARGEST = 65536 };

static char room[MOST][LARGEST];
static struct sockaddr_in from[MOST];
static struct mmsghdr packets[MOST];
static struct iovec at[MOST];

/* Both echo what is there, and return when nothing is. */
static void echo_single(int s)
{
	for (;;) {
		socklen_t len = sizeof from[0];
		ssize_t n = recvfrom(s, room[0], LARGEST, MSG_DONTWAIT, (struct sockaddr *)&from[0], &len);
		if (n < 0)
			return;
		sendto(s, room[0], n, MSG_DONTWAIT, (struct sockaddr *)&from[0], len);
	}
}

static void echo_many(int s, int batch)
{
	for (;;) {
		for (int i = 0; i < batch; i++) {
			at[i] = (struct iovec){ room[i], LARGEST };
			packets[i].msg_hdr = (struct msghdr){ .msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &at[i], .msg_iovlen = 1 };
		}
		int n = recvmmsg(s, packets, batch, MSG_DONTWAIT, NULL);
		if (n < 0)
			return;
		for (int i = 0; i < n; i++)
			at[i].iov_len = packets[i].msg_len;
		for (int sent = 0; sent < n;) {
			int r = sendmmsg(s, packets + sent, n - sent, MSG_DONTWAIT);
			sent += r > 0 ? r : 1; /* one that cannot be sent is dropped */
		}
	}
}

int main(int argc, char **argv)
{
	int s = socket(AF_INET, SOCK_DGRAM, 0), batch = argc == 3 ? atoi(argv[2]) : 0;
	if (batch < 1 || batch > MOST) {
		fprintf(stderr, "usage: udp_floor PORT BATCH\n");
		return 2;
	}
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(atoi(argv[1])) };
	if (bind(s, (struct sockaddr *)&a, sizeof a)) {
		perror("bind");
		return 1;
	}
	for (struct pollfd p = { .fd = s, .events = POLLIN };; poll(&p, 1, -1)) {
		if (batch == 1)
			echo_single(s);
		else
			echo_many(s, batch);
	}
}
