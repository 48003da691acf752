from dphrl.cli import main

raise SystemExit(main())
