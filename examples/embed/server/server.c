/* An HTTP server that classifies digits: one copy of the weights, a workspace for each thread.
 *
 *   cc -O2 -pthread -I ../../../build/embed/net server.c ../../../build/embed/net/libnet.a -lm -o server
 *   ./server ../../../build/embed/net/net.safetensors 8080 8
 *   curl --data-binary @image http://127.0.0.1:8080/classify
 *
 * POST /classify takes 784 bytes, the grey values of 28 x 28 pixels row by row (0 is paper, 255 ink), and answers
 * {"digit": 3, "probabilities": [...]}. Connections are kept alive; each is served by the thread that accepted it.
 * Port 0 takes a free one; the port is printed.
 */
#include "../digits.h"
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST_THREADS 64
#define HEAD_BYTES 4096

static _Alignas(NET_ALIGN) unsigned char prepared[NET_PREPARED_BYTES];
static int listener;

static int send_all(int connection, const char *text, size_t length) {
    while (length > 0) {
        ssize_t sent = send(connection, text, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return -1;
        text += sent;
        length -= (size_t)sent;
    }
    return 0;
}

static int answer(int connection, const char *status, const char *body) {
    char head[256];
    int length = snprintf(head, sizeof head,
                          "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", status,
                          strlen(body));
    return send_all(connection, head, (size_t)length) || send_all(connection, body, strlen(body));
}

static int classify(int connection, const unsigned char *pixels, void *workspace) {
    float image[PIXELS], scores[10];
    for (int k = 0; k < PIXELS; k++) image[k] = ((float)pixels[k] / 255.0f - 0.1307f) / 0.3081f;
    int code = net_run(prepared, image, scores, 1, workspace, (size_t)NET_WORKSPACE_BYTES(1, 1));
    if (code != NET_OK) return answer(connection, "500 Internal Server Error", "{\"error\": \"net_run\"}");
    char body[512];
    int length = snprintf(body, sizeof body, "{\"digit\": %d, \"probabilities\": [", largest(scores));
    for (int k = 0; k < 10; k++)
        length += snprintf(body + length, sizeof body - (size_t)length, "%s%.6f", k ? ", " : "", exp(scores[k]));
    snprintf(body + length, sizeof body - (size_t)length, "]}\n");
    return answer(connection, "200 OK", body);
}

/* A header's number, -1 without one. */
static long content_length(const char *head) {
    for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, "content-length:", 15) == 0) {
            char *end;
            long value = strtol(line + 15, &end, 10);
            return end != line + 15 && value >= 0 ? value : -2;
        }
    }
    return -1;
}

/* Requests of one connection, until it ends or makes no sense. */
static void serve(int connection, void *workspace) {
    char buffer[HEAD_BYTES + PIXELS + 1];
    size_t have = 0;
    for (;;) {
        char *body;
        buffer[have] = 0;
        while ((body = strstr(buffer, "\r\n\r\n")) == NULL) {
            if (have >= HEAD_BYTES) {
                answer(connection, "431 Request Header Fields Too Large", "{\"error\": \"head too long\"}");
                return;
            }
            ssize_t received = recv(connection, buffer + have, HEAD_BYTES - have, 0);
            if (received < 0 && errno == EINTR) continue;
            if (received <= 0) return;
            have += (size_t)received;
            buffer[have] = 0;
        }
        body += 4;
        body[-1] = 0; /* The head is a string of its own. */
        size_t head = (size_t)(body - buffer);
        int wanted = strncmp(buffer, "POST /classify ", 15) == 0;
        long length = content_length(buffer);
        if (!wanted || length != PIXELS) {
            answer(connection, wanted ? "400 Bad Request" : "404 Not Found",
                   "{\"error\": \"POST 784 bytes to /classify\"}");
            return;
        }
        while (have < head + PIXELS) {
            ssize_t received = recv(connection, buffer + have, head + PIXELS - have, 0);
            if (received < 0 && errno == EINTR) continue;
            if (received <= 0) return;
            have += (size_t)received;
        }
        if (classify(connection, (const unsigned char *)body, workspace) != 0) return;
        have -= head + PIXELS;
        memmove(buffer, body + PIXELS, have);
    }
}

static void *work(void *argument) {
    (void)argument;
    void *workspace = aligned_alloc(NET_ALIGN, (size_t)NET_RAISED_(NET_WORKSPACE_BYTES(1, 1)));
    if (workspace == NULL) exit(1);
    for (;;) {
        int connection = accept(listener, NULL, NULL);
        if (connection < 0) continue;
        int on = 1;
        setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        serve(connection, workspace);
        close(connection);
    }
    return NULL;
}

int main(int count, char **arguments) {
    int threads = count == 4 ? atoi(arguments[3]) : 0;
    if (threads < 1 || threads > MOST_THREADS) {
        fprintf(stderr, "usage: server net.safetensors port threads (1 to %d)\n", MOST_THREADS);
        return 2;
    }
    size_t bytes;
    unsigned char *file = read_file(arguments[1], &bytes);
    int code = net_prepare(file, bytes, prepared, sizeof prepared);
    free(file);
    if (code != NET_OK) {
        fprintf(stderr, "%s\n", net_strerror(code));
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[2])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int on = 1;
    listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 128) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0) {
        perror("server");
        return 1;
    }
    printf("listening on port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    pthread_t handles[MOST_THREADS];
    for (int k = 1; k < threads; k++)
        if (pthread_create(&handles[k], NULL, work, NULL) != 0) return 1;
    work(NULL);
}
