/* Decodes images of a made-up format: 4 bytes give the offset of the first row, then come the rows. The bugs:
   the offset is not checked, and there is no function for images that begin with the byte 254. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

__attribute__((noinline)) static uint32_t decode_row(const uint8_t *row, size_t length) {
    uint32_t sum = 0;
    for (size_t i = 0; i < length; i++) {
        sum += ((const volatile uint8_t *)row)[i];
    }
    return sum;
}

typedef uint32_t (*decoder)(const uint8_t *bytes, size_t length);

static const volatile decoder decoder_of_254 = NULL;

__attribute__((noinline)) uint32_t decode_image(const uint8_t *bytes, size_t length) {
    if (length < 4) {
        abort();
    }
    if (bytes[0] == 254) {
        return decoder_of_254(bytes, length) + 1;
    }
    size_t offset = (size_t)bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24;
    uint32_t sum = decode_row(bytes + offset * 4096, length - 4);
    return sum + 1;
}
