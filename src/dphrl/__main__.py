from dphrl.cli.main import main

raise SystemExit(main())
