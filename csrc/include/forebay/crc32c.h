/* CRC-32C (Castagnoli), alone and fused with a copy, as fast as this CPU allows.
 *
 * The implementation is chosen once, at the first call, from what the CPU reports: carry-less multiplication
 * over 512-bit registers or three interleaved SSE4.2 streams on x86-64, the CRC extension on arm64, slicing
 * by eight anywhere else. All of them give the same value.
 *
 * All functions: any thread, no allocation, no failure, no alignment asked of any pointer. A pointer may be
 * NULL only when its length is 0. Source and destination of a copy must not overlap. If somebody writes to
 * the source meanwhile, bytes and checksum may disagree, as for bytes damaged later. When a copy returns, its
 * stores are ordered like those of memcpy: a release store publishes them.
 *
 * Source: RFC 3720, section 12.1 and appendix B.4.
 */
#ifndef FOREBAY_CRC32C_H
#define FOREBAY_CRC32C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* CRC-32C of data appended to bytes whose CRC-32C is crc; 0 to begin. */
uint32_t fb_crc32c(uint32_t crc, const void *data, size_t length_bytes);

/* Copies like memcpy and returns the CRC-32C of the copied bytes. */
uint32_t fb_copy_crc32c(void *destination, const void *source, size_t length_bytes);

/* One checksum a chunk, each beginning at 0; the last chunk may be short, and an empty run has none.
 * chunk_bytes is positive; out holds a word for each chunk begun. */
void fb_crc32c_chunks(const void *data, size_t length_bytes, size_t chunk_bytes, uint32_t *out);

/* The same while copying. */
void fb_copy_crc32c_chunks(void *destination, const void *source, size_t length_bytes, size_t chunk_bytes,
                           uint32_t *out);

/* Name of the implementation in use, for status pages: "vpclmulqdq", "sse42", "arm64" or "portable". */
const char *fb_crc32c_implementation(void);

#ifdef __cplusplus
}
#endif

#endif
