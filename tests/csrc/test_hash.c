/* Known answers of the block key's two hashes.
 *
 * Murmur: from PyPI's mmh3, hash64(data, seed, x64arch=True, signed=False). SipHash-1-3: from an
 * implementation in Python that agrees with the published SipHash-2-4 vectors and, at 1 and 3 rounds, with
 * CPython's own hash() of bytes under known PYTHONHASHSEEDs.
 */
#include "forebay/hash.h"

#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

#define PATTERN_BYTES 256
#define OTHER_SEED 0x9747b28cu

static const struct answer {
    size_t length_bytes;
    uint64_t seed_zero[2];
    uint64_t other_seed[2];
    uint64_t sip;
} answers[] = {
    {0,
     {0x0000000000000000, 0x0000000000000000},
     {0x392b208a1daabbb3, 0x93b0608fe302957a},
     0xabac0158050fc4dc},
    {1,
     {0x726ac6dd306a3e59, 0x4e711127c5b5a8e4},
     {0x90b4d63614ff67fa, 0xee6aef3e953ed8d4},
     0x2f2848bdf070e448},
    {2,
     {0x20397a993ff70362, 0x2cab193a4622361c},
     {0x8b7e1c857d15e771, 0x4b3c0312aa2ad79f},
     0xe831c51e23d27347},
    {3,
     {0x6e3febcaf3b53dce, 0xe5bb83e375ffb688},
     {0x94a124bc90750005, 0xb11d496349c2ab5a},
     0xf61a63028077d0c5},
    {4,
     {0x0e29ed82ded0aa06, 0xadb20c1802c28885},
     {0x8ad04f8b42e1191a, 0xaa2690695ffd1bd7},
     0x908d984457e124fd},
    {5,
     {0xa82aed5674c88370, 0x30a0320850949358},
     {0xa8866a86a52d9e37, 0x096f9e50ac808a0b},
     0x402558ee83a5fcf1},
    {6,
     {0x46cdbf2912314129, 0x3fd9512a9d1601ac},
     {0xdcedc8311a1cc308, 0x304f6b6c78db20ef},
     0x4f873ecee11db553},
    {7,
     {0xbecbbf54236ce3a1, 0x2b3ba492e39cef50},
     {0xec5bd9ca6d302e36, 0x96a7416fb4e922b3},
     0xc2b1c4efb962bfb6},
    {8,
     {0xa5ee2a9a9132d3bd, 0x259e7f3a617e003a},
     {0x49dbc4cab9026576, 0x27687abd9b5fdc6d},
     0x5e53292486662ee6},
    {9,
     {0x51ba2ea10afadbb6, 0x1f8153c3131e0496},
     {0x3b00453f3bb39e38, 0x74e65e6f85bfbf4d},
     0x268e415ade4e09d2},
    {10,
     {0x0cfb7360d9faa194, 0xecb86c2f3d9ba94f},
     {0x342305405ae88d85, 0xf55046c20e3c7e41},
     0xbfe6f543d4a2e93b},
    {11,
     {0xe8c32ab7814b03d0, 0x13720d13e51ad72d},
     {0xe0fb1d167bbd7fdf, 0x11228cafb3b90c20},
     0xb6ac723ca8dbc19d},
    {12,
     {0x92408898cf3ea070, 0x7b0fd157afb4f215},
     {0x1dfae5a2ed1c6b87, 0x5878b68b9929995e},
     0x83e05d493494354b},
    {13,
     {0xd067c85b9518a027, 0x0fd77b52596e08ec},
     {0x0b96c2b645783fae, 0x0e71a174e6862b45},
     0xe56d34348d4fa19a},
    {14,
     {0x87c460807cb73876, 0x2b4ff4a6aee2ecf8},
     {0x3bb3712cfe063ca8, 0x95ae2b31d1ff49a2},
     0x41b0bae79237cb5e},
    {15,
     {0xba6a4b5e80ade4f4, 0xe00e5a8ff7e8f26d},
     {0xfa1201bd4f1fa2d6, 0x7c8528a421bcd28f},
     0x57c2a2489d64ff8f},
    {16,
     {0xc4b099c52f8f4ea1, 0x7d670219d92afe48},
     {0x26b0e162f546c35b, 0x346ee713062eddd3},
     0x4a03ed90335c4783},
    {17,
     {0xd4ae4b39fe53b127, 0x6602453b6681dbe9},
     {0xa4a18b877d0064c9, 0x1adce4fca972cb77},
     0xaf0a14aa9c49df04},
    {23,
     {0x4dcc0798a0ad4570, 0x7cc110ecbb0142cd},
     {0xf8efc482516c17fc, 0x3743ae60d9551f41},
     0x00ace4099e8d96fe},
    {24,
     {0xecebc073185cf2dd, 0xa824e81f1e1ed450},
     {0x15526f08a0b5fc71, 0x0fc7c0ca800b5f5b},
     0x86efdbfe7f0c6239},
    {25,
     {0x90cd94cfd82e1b1c, 0x0b07b1821236d3d0},
     {0x486a7a08f364002d, 0x64b300d9390ee756},
     0x89fdf4595cc3bb28},
    {31,
     {0x9d91fedff00436fb, 0x7ea851ba737ebfd0},
     {0x09d29e0730d65224, 0xf747e28c962db311},
     0x3e54e37ddfda3a0f},
    {32,
     {0x65bdb8dd080643ff, 0xbec31b8aa5f3910a},
     {0xfda0a994a6f2d082, 0xe36489f081123b82},
     0x472bb3625573d3cf},
    {33,
     {0xb16757d8c4f72f1a, 0x9171ee56072d60a6},
     {0x97916c2176ab4c48, 0xb72afec1757d5ff1},
     0x7c64da2ec1d32780},
    {47,
     {0x1ae5d525c6171259, 0x831e560033fb7f91},
     {0xd792a8afc45d5c81, 0x59cfbf5004bd1c64},
     0x9639d93d61583c61},
    {48,
     {0x32778697f8bf8cd3, 0x09c739cdcec43d06},
     {0x45098247b8886143, 0x805a8dd8873b71d6},
     0x9120834baed07a8e},
    {63,
     {0xc36295303b7a43a3, 0xe81d2f98cd7a916c},
     {0x08c32f7629889ced, 0xfe87c92ed5b2a715},
     0xf9c64a7ea2f51995},
    {64,
     {0xf50f13e7205dfca3, 0xa5cf4256c64ec87c},
     {0x330d096336d4d940, 0x564f13d087679ead},
     0xbd8419e80635ccbe},
    {65,
     {0x47b62f90beb72aff, 0x77e2620dcb0ae1de},
     {0xe5808c8857d2684c, 0xae5295c14281dd28},
     0x4ef9eb5b896faf24},
    {256,
     {0x64128603c3015319, 0x8499c754716255b2},
     {0x6473c7f15221978b, 0x054ffd04f09f4c20},
     0x5c6c72cf123ac2e2},
};

static const size_t answer_count = sizeof answers / sizeof answers[0];

static void fill_pattern(uint8_t *bytes, size_t length_bytes)
{
    for (size_t i = 0; i < length_bytes; i++)
        bytes[i] = (uint8_t)(i * 7 + 3);
}

static void fill_secret(uint8_t secret[FB_HASH_SECRET_BYTES])
{
    for (int i = 0; i < FB_HASH_SECRET_BYTES; i++)
        secret[i] = (uint8_t)i;
}

static void check_answer(const struct answer *answer, const uint8_t *data)
{
    uint8_t secret[FB_HASH_SECRET_BYTES];
    uint64_t words[2];
    struct fb_key key;

    fill_secret(secret);
    fb_murmur3_x64_128(data, answer->length_bytes, 0, words);
    CHECK_EQ(words[0], answer->seed_zero[0]);
    CHECK_EQ(words[1], answer->seed_zero[1]);
    fb_murmur3_x64_128(data, answer->length_bytes, OTHER_SEED, words);
    CHECK_EQ(words[0], answer->other_seed[0]);
    CHECK_EQ(words[1], answer->other_seed[1]);
    CHECK_EQ(fb_siphash13(secret, data, answer->length_bytes), answer->sip);
    fb_key_of(secret, data, answer->length_bytes, &key);
    CHECK_EQ(key.lo, answer->seed_zero[0]);
    CHECK_EQ(key.hi, answer->seed_zero[1]);
    CHECK_EQ(key.check, answer->sip);
}

TEST(answers_are_the_published_ones_at_any_alignment)
{
    uint8_t buffer[PATTERN_BYTES + 16];

    for (size_t offset = 0; offset < 16; offset++) {
        fill_pattern(buffer + offset, PATTERN_BYTES);
        for (size_t i = 0; i < answer_count; i++)
            check_answer(&answers[i], buffer + offset);
    }
}

TEST(nothing_is_read_past_the_end)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *pages = mmap(NULL, 2 * page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    CHECK_EQ(mprotect(pages + page_bytes, page_bytes, PROT_NONE), 0);

    for (size_t i = 0; i < answer_count; i++) {
        uint8_t *data = pages + page_bytes - answers[i].length_bytes;
        fill_pattern(data, answers[i].length_bytes);
        check_answer(&answers[i], data);
    }
    CHECK_EQ(munmap(pages, 2 * page_bytes), 0);
}

TEST(empty_data_may_be_null)
{
    CHECK_EQ(answers[0].length_bytes, 0);
    check_answer(&answers[0], NULL);
}

TEST(check_depends_on_every_bit_of_the_secret)
{
    uint8_t secret[FB_HASH_SECRET_BYTES];
    fill_secret(secret);
    uint64_t plain = fb_siphash13(secret, "block", 5);

    for (int bit = 0; bit < 8 * FB_HASH_SECRET_BYTES; bit++) {
        secret[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK_NE(fb_siphash13(secret, "block", 5), plain);
        secret[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

CHECK_MAIN
