....                                                                     [100%]
============================= slowest 10 durations =============================
0.06s call     tests/test_checkpoint_layouts.py::test_a_model_without_memory_is_refused
0.02s call     tests/test_ops_nms.py::test_boxes_may_lie_anywhere_in_memory
0.01s call     tests/test_ops_roi_align.py::test_map_and_boxes_may_lie_anywhere_in_memory
0.01s call     tests/test_ops_deformable.py::test_offsets_of_a_larger_map_are_read_in_memory_order

(6 durations < 0.005s hidden.  Use -vv to show these durations.)
4 passed, 884 deselected in 10.88s
