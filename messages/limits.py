"""Every size limit of the system, in one place, so that "bounded" can be checked by reading."""

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE

MAX_TASK_BYTES = 8 * MEBIBYTE
"""Largest MQTT payload a sensor may publish as one task."""

MAX_TASK_INPUT_BYTES = 32 * MEBIBYTE
"""Largest decoded input tensor of one task (after base64, zstd or picture decoding)."""

MAX_BATCH = 1024
"""Most inputs in one task."""

MAX_IMAGE_PIXELS = 4096 * 4096
"""Largest picture that is decoded; bigger ones are refused from their header alone."""

MAX_JPEG_PIXELS = 64 * MEBIBYTE
"""Largest baseline JPEG: a smaller version of it is decoded for little (48 megapixels, as of a phone)."""

MAX_TASK_PIXELS = MAX_IMAGE_PIXELS
"""Most pixels to decode for all pictures of one task together, by their headers."""

MAX_MSGPACK_MAP = 16
MAX_MSGPACK_MAPS = 16
MAX_MSGPACK_ARRAYS = 16
MAX_MSGPACK_TEXT_BYTES = 1 * KIBIBYTE
"""Entries of a map, number of maps and of arrays, and bytes of a text in a task's msgpack body."""

MAX_JSON_COMMAS = 4 * MAX_BATCH
MAX_JSON_BRACKETS = 256
"""Commas and opening brackets in a task's JSON body, counted before it is parsed."""

MAX_RESPONSE_TOPIC_BYTES = 256
MAX_RESPONSE_TOPIC_LEVELS = 10
"""Bounds of a response topic. Mosquitto disconnects who publishes on more than 200 levels."""

MIN_DEADLINE_MS = 1.0
MAX_DEADLINE_MS = 24 * 3600 * 1000.0
"""Deadlines outside this range are refused as absurd."""

MAX_CONTROL_BYTES = 256 * KIBIBYTE
"""Largest JSON message between services and nodes."""

MAX_SECOND_RUN_BYTES = 2 * MEBIBYTE
"""Largest second run: as many placements as its branches need."""

MAX_CATALOGUE_BYTES = 1 * MEBIBYTE
"""Largest retained application description."""

MAX_ANSWER_BYTES = 1 * MEBIBYTE
"""Largest answer to a sensor."""

MAX_FOUND = 1024
"""Objects, labels or signs in all answers of one task together."""

MAX_REGIONS = 256
"""Classes that are named beside the maps in all answers of one task together."""

MAX_FOUND_VALUES = 16 * KIBIBYTE
"""Values of the vectors in all answers of one task together."""

MAX_MAP_PIXELS = 1 << 19
"""Pixels of all maps of classes in the answers of one task: the gateway fits them to the pictures."""

MAX_FINDING_BYTES = 512 * KIBIBYTE
"""Bytes of maps or tensors in all answers of one task together; in JSON they are a third more."""

MAX_METRIC_BYTES = 16 * KIBIBYTE
"""Largest message below `metrics/`."""

CHUNK_BYTES = 256 * KIBIBYTE
"""Largest chunk of a tensor or fragment file in one message (docs/limits.md has the measurements)."""

MAX_HEADER_BYTES = 32 * KIBIBYTE
"""Largest header of a tensor frame or fragment chunk: the longest route and the largest bundle fit."""

MAX_FRAME_BYTES = CHUNK_BYTES + MAX_HEADER_BYTES + 64
"""Largest MQTT payload below `tensor/` and `fragment/`."""

MAX_TENSOR_BYTES = 64 * MEBIBYTE
"""Largest tensor, or bundle of tensors, that is put together from chunks or decompressed."""

MAX_TENSOR_RANK = 8

MAX_CHUNKS = MAX_TENSOR_BYTES // CHUNK_BYTES + 1

PREPARED_FROM_BYTES = 16 * MEBIBYTE
"""Weights from which on a fragment is prepared. Below, the process that prepares it costs more than it saves:
to start it takes a second of a whole core, and ten on a node that has a tenth of one."""
MAX_FILE_BYTES = 256 * MEBIBYTE
"""Largest file that a node fetches."""

MAX_STAGES = 64
"""Most stages in one variant, and so the greatest depth of a route."""

MAX_REPLICAS = 16
"""Most nodes that share a stage."""

MAX_PLACED = 256
"""Most nodes of all stages of a task together, each counted once for every stage that it runs."""
MAX_FORESEEN = 48
"""Most of these that a decision may name as a hint for the placer."""

MAX_MICRO_BATCHES = MAX_BATCH

MAX_DEALT = 128
"""Most micro-batches of a task whose stages have replicas: a placement names each of them."""

MAX_SECOND_PARTS = 8
"""Most placements of a second run; variants whose branches need more have none."""

MAX_NODES = 4096
"""Most nodes in one cluster snapshot."""

MAX_PACKET_BYTES = MAX_TASK_BYTES + KIBIBYTE * 64
"""What the broker must let through; `splitplace doctor` compares it with CONNACK."""

MAX_PIECES = 64
"""Most pieces of one network."""

MAX_STORED_PIECES = 1024
"""Most pieces of all networks of an application."""

MAX_BUNDLE_TENSORS = 64
"""Most tensors that cross one boundary between pieces."""

MAX_BUNDLE_NAME_BYTES = 64
"""Longest name, in UTF-8, of a tensor that crosses a boundary together with others: the names of a bundle
travel in each header. A tensor that crosses alone needs no name there."""

SMALL_WEIGHT_BYTES = KIBIBYTE
"""Smaller weights stay in the graph file of their piece."""

MAX_GRAPH_FILE_BYTES = 4 * MEBIBYTE
"""Largest graph file of a piece. Weights from `SMALL_WEIGHT_BYTES` up lie in the weights file."""
