#include <math.h>
#include <string.h>

#include "rp_matrix.h"
#include "rp_memory.h"

/* A group holds rows of one aligned block row of the CSR matrix, in their own lanes: a gate that starts inside a block
 * row, or a thread that ends in one, costs a padded group and never breaks a block. */
static bool starts_group(rp_row_map map, size_t i, size_t lanes) {
    return i == 0 || map.source[i] != map.source[i - 1] + 1 || map.source[i] % lanes == 0;
}

static size_t group_end(rp_row_map map, size_t i, size_t lanes) {
    do i++;
    while (i < map.len && !starts_group(map, i, lanes));
    return i;
}

/* Marks the block columns in use by rows [i, end); returns how many. */
static size_t mark_blocks(const rp_csr *csr, rp_row_map map, size_t i, size_t end, size_t width, uint8_t *used) {
    size_t count = 0;
    memset(used, 0, (csr->cols + width - 1) / width);
    for (; i < end; i++) {
        const int32_t *crow = csr->crow_indices.data + map.source[i];
        for (int32_t k = crow[0]; k < crow[1]; k++) {
            size_t block = rp_csr_column(csr, (size_t)k) / width;
            count += !used[block];
            used[block] = 1;
        }
    }
    return count;
}

/* int8 values are stored in quads of four vectors of 16 (16x1) or 8 values: a group must fill its last quad. */
static size_t vector_size(rp_format f) { return f.lanes == 16 ? 16 : 8; }

static size_t pad_blocks(rp_format f, size_t blocks) {
    size_t quad = 4 * vector_size(f) / (f.lanes * f.width); /* blocks in a quad */
    return f.int8_values ? rp_round_up(blocks, quad ? quad : 1) : blocks;
}

static rp_status count_blocks(rp_matrix *m, const rp_csr *csr, rp_row_map map, uint8_t *used) {
    size_t lanes = m->format.lanes, width = m->format.width;
    for (size_t i = 0; i < map.len; i++) m->groups += starts_group(map, i, lanes);
    m->group_start = rp_matrix_alloc(m, m->groups + 1, sizeof *m->group_start);
    m->row_of_lane = rp_matrix_alloc(m, m->groups * lanes, sizeof *m->row_of_lane);
    if (!m->group_start || !m->row_of_lane) return RP_NO_MEMORY;
    for (size_t i = 0, g = 0; i < map.len; i = group_end(map, i, lanes), g++) {
        m->slots += pad_blocks(m->format, mark_blocks(csr, map, i, group_end(map, i, lanes), width, used));
        if (m->slots >= UINT32_MAX) return RP_BAD_ARGUMENT;
        m->group_start[g + 1] = (uint32_t)m->slots;
    }
    return RP_OK;
}

/* The last block of a row is moved left when it would stick out: the kernels then need no padded x. */
static size_t first_column(size_t block, size_t width, size_t cols) {
    return block * width + width <= cols ? block * width : cols - width;
}

/* block_at turns from "used" into the block's place among the blocks of the matrix. */
static void fill_group(rp_matrix *m, const rp_csr *csr, rp_row_map map, size_t i, size_t end, size_t g,
                       const uint8_t *used, uint32_t *block_at) {
    size_t lanes = m->format.lanes, width = m->format.width, next = m->group_start[g];
    for (size_t block = 0; block * width < m->cols; block++) {
        if (!used[block]) continue;
        block_at[block] = (uint32_t)next;
        m->columns[next++] = (uint16_t)first_column(block, width, m->cols);
    }
    for (; next > m->group_start[g] && next < m->group_start[g + 1]; next++) m->columns[next] = m->columns[next - 1];
    for (size_t lane = 0; lane < lanes; lane++) m->row_of_lane[g * lanes + lane] = RP_NO_ROW;
    for (; i < end; i++) {
        const int32_t *crow = csr->crow_indices.data + map.source[i];
        size_t lane = map.source[i] % lanes;
        m->row_of_lane[g * lanes + lane] = map.target[i];
        for (int32_t k = crow[0]; k < crow[1]; k++) {
            size_t column = rp_csr_column(csr, (size_t)k), block = column / width;
            size_t offset = (column - first_column(block, width, m->cols)) * lanes + lane;
            m->values[block_at[block] * lanes * width + offset] = csr->values.data[k];
        }
    }
}

static float largest_of_lane(const rp_matrix *m, size_t g, size_t lane) {
    size_t lanes = m->format.lanes, width = m->format.width;
    float largest = 0;
    for (size_t k = m->group_start[g] * width; k < m->group_start[g + 1] * width; k++)
        largest = fmaxf(largest, fabsf(m->values[k * lanes + lane]));
    return largest;
}

/* Byte p of word l of a quad is lane l of its vector p. */
static size_t in_quads(rp_format f, size_t at) {
    size_t size = vector_size(f), lane = at % size, vector = at / size;
    return vector / 4 * 4 * size + lane * 4 + vector % 4;
}

/* value ~ q * scale, q in [-127, 127], scale = the row's largest |value| / 127. */
static rp_status quantize(rp_matrix *m) {
    size_t lanes = m->format.lanes, width = m->format.width, count = m->slots * lanes * width;
    m->int8_values = rp_matrix_alloc(m, count, sizeof *m->int8_values);
    m->scales = rp_matrix_alloc(m, m->groups * lanes, sizeof *m->scales);
    if (!m->int8_values || !m->scales) return RP_NO_MEMORY;
    for (size_t i = 0; i < m->groups * lanes; i++) {
        size_t g = i / lanes, lane = i % lanes;
        float scale = m->scales[i] = largest_of_lane(m, g, lane) / 127.0f;
        for (size_t k = m->group_start[g] * width; k < m->group_start[g + 1] * width; k++)
            m->int8_values[in_quads(m->format, k * lanes + lane)] =
                (int8_t)lrintf(scale > 0 ? m->values[k * lanes + lane] / scale : 0);
    }
    rp_free(m->values);
    m->values = NULL;
    m->bytes -= count * sizeof *m->values;
    return RP_OK;
}

static rp_status pack(rp_matrix *m, const rp_csr *csr, rp_row_map map, uint8_t *used, uint32_t *block_at) {
    size_t lanes = m->format.lanes, width = m->format.width;
    rp_status status = count_blocks(m, csr, map, used);
    if (status != RP_OK) return status;
    m->values = rp_matrix_alloc(m, m->slots * lanes * width, sizeof *m->values);
    m->columns = rp_matrix_alloc(m, m->slots, sizeof *m->columns);
    if (!m->values || !m->columns) return RP_NO_MEMORY;
    for (size_t i = 0, g = 0, end; i < map.len; i = end, g++) {
        end = group_end(map, i, lanes);
        mark_blocks(csr, map, i, end, width, used);
        fill_group(m, csr, map, i, end, g, used, block_at);
    }
    return m->format.int8_values ? quantize(m) : RP_OK;
}

rp_status rp_pack_block(rp_matrix *m, const rp_csr *csr, rp_row_map map) {
    size_t blocks = csr->cols / m->format.width + 1;
    uint8_t *used = rp_alloc(blocks, sizeof *used);
    uint32_t *block_at = rp_alloc(blocks, sizeof *block_at);
    rp_status status = used && block_at ? pack(m, csr, map, used, block_at) : RP_NO_MEMORY;
    rp_free(used);
    rp_free(block_at);
    return status;
}
